//! When the requests of an open loop go out: drawn, waited for to a tenth of a millisecond, handed to
//! connections. Says nothing of what is asked.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Longest sleep, so that the request to stop is heard though the next arrival is far away.
const SLEEP_MAX: Duration = Duration::from_millis(20);

/// A Poisson process of arrivals, the same for the same seed.
struct Arrivals {
    next: Instant,
    rate: f64,
    state: u64,
}

impl Arrivals {
    /// From `start` on, `rate` per second.
    fn new(start: Instant, rate: f64, seed: u64) -> Self {
        let mut arrivals = Self { next: start, rate, state: seed };
        arrivals.draw();
        arrivals
    }

    /// The arrival that is next, and moves on.
    fn draw(&mut self) -> Instant {
        let at = self.next;
        let gap = -self.unit().ln() / self.rate;
        self.next += Duration::from_secs_f64(gap);
        at
    }

    /// A number above 0, at most 1 (SplitMix64, Steele et al. 2014).
    fn unit(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        ((mixed >> 11) + 1) as f64 / (1u64 << 53) as f64
    }
}

/// Requests that are due and wait for a free connection.
pub struct Pace {
    arrivals: RefCell<Arrivals>,
    due: RefCell<VecDeque<Instant>>,
    turn: Notify,
}

impl Pace {
    /// Arrivals from `start` on, `rate` per second, drawn from `seed`.
    pub fn new(start: Instant, rate: f64, seed: u64) -> Self {
        Self { arrivals: RefCell::new(Arrivals::new(start, rate, seed)), due: RefCell::default(), turn: Notify::new() }
    }

    /// Makes requests due at their moments until stopped.
    ///
    /// # Errors
    /// The machine refuses a timer.
    pub async fn run(&self, stopped: &Cell<bool>) -> std::io::Result<()> {
        let timer = Timer::new()?;
        while !stopped.get() {
            let now = Instant::now();
            let next = self.arrivals.borrow().next;
            if next > now {
                timer.sleep((next - now).min(SLEEP_MAX)).await?;
                continue;
            }
            let at = self.arrivals.borrow_mut().draw();
            self.due.borrow_mut().push_back(at);
            // The connection that became free last: no more connections are opened than the load needs.
            self.turn.notify_last();
            if self.due.borrow().len().is_multiple_of(64) {
                tokio::task::yield_now().await;
            }
        }
        self.turn.notify_waiters();
        Ok(())
    }

    /// Waits until a request is due for this connection: the moment it was meant to go out; `None` once stopped.
    pub async fn turn(&self, stopped: &Cell<bool>) -> Option<Instant> {
        loop {
            if stopped.get() {
                return None;
            }
            if let Some(due) = self.due.borrow_mut().pop_front() {
                return Some(due);
            }
            self.turn.notified().await;
        }
    }

    /// Requests that were due and found no free connection.
    pub fn unsent(&self) -> usize {
        self.due.borrow().len()
    }
}

/// A timer of the kernel's precision; the runtime's own has a millisecond.
struct Timer(AsyncFd<OwnedFd>);

impl Timer {
    fn new() -> std::io::Result<Self> {
        let fd =
            rustix::time::timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        #[expect(unsafe_code, reason = "the descriptor is owned by the AsyncFd and closed only with it")]
        // SAFETY: `fd` is open, the AsyncFd owns it, and nothing here takes it out before the registration ends.
        let registered = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
        Ok(Self(registered?))
    }

    async fn sleep(&self, span: Duration) -> std::io::Result<()> {
        let value = Timespec { tv_sec: 0, tv_nsec: i64::from(span.subsec_nanos()).max(1) };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        rustix::time::timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &once)?;
        loop {
            let mut ready = self.0.readable().await?;
            let read = ready.try_io(|timer| {
                let mut expirations = [0; 8];
                rustix::io::read(timer.get_ref(), &mut expirations).map_err(Into::into)
            });
            match read {
                Ok(read) => return read.map(drop),
                Err(_not_yet) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_come_at_the_rate_and_the_same_for_the_same_seed() {
        let start = Instant::now();
        let (mut one, mut other) = (Arrivals::new(start, 1000.0, 7), Arrivals::new(start, 1000.0, 7));

        let ones: Vec<_> = (0..10_000).map(|_| one.draw()).collect();
        let others: Vec<_> = (0..10_000).map(|_| other.draw()).collect();

        assert_eq!(ones, others);
        let seconds = (ones[9_999] - start).as_secs_f64();
        assert!((9.5..10.5).contains(&seconds), "{seconds}");
    }

    /// What the connections cannot take is counted, not forgotten.
    #[tokio::test]
    async fn requests_that_found_no_connection_are_counted() {
        let (pace, stopped) = (Pace::new(Instant::now(), 10_000.0, 7), Cell::new(false));

        let one_connection = async {
            pace.turn(&stopped).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            stopped.set(true);
        };
        let (run, ()) = tokio::join!(pace.run(&stopped), one_connection);

        run.expect("a timer is to be had");
        assert!(pace.unsent() > 100, "{}", pace.unsent());
    }
}

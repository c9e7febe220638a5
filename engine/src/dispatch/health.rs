//! Whether a target is to get requests: failures in a row, or too many compared with its peers, put it aside for
//! a while; now and then it gets one request to show that it is well again. Counts are kept by second, as
//! linkerd2-proxy came to do (its PR 4561): a mean that decays weighs bursts and pauses wrongly.

use super::Time;

/// Failures in a row that are enough.
const CONSECUTIVE_MAX: u32 = 5;
/// Requests in ten seconds from which on shares are compared.
const SAMPLES_MIN: u32 = 10;
/// A target below this share of successes, and this far below its peers' median, is put aside.
const SHARE_MIN: f64 = 0.8;
const SHARE_BELOW_PEERS: f64 = 0.2;
/// How often a target that is put aside gets one request, by which it may come back. Not doubled: one failed
/// request in five seconds costs little, and a target that is well again should not be missed for a minute.
const PROBE_EACH: Time = Time::from_secs(5);
const SLOTS: u64 = 10;

/// What is known of a target's failures.
#[derive(Debug, Default)]
pub struct Health {
    /// Successes and failures by second.
    slots: [(u32, u32); SLOTS as usize],
    second: u64,
    consecutive: u32,
    /// When it may get a request though it is put aside; `None`: it is not.
    probe_at: Option<Time>,
}

/// Why a target was put aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Failures in a row.
    Consecutive,
    /// Fewer successes than its peers.
    Share,
}

impl Health {
    /// A request was answered well; true when that ends its being put aside.
    pub fn ok(&mut self, now: Time) -> bool {
        self.slot(now).0 += 1;
        self.consecutive = 0;
        let returns = self.probe_at.take().is_some();
        if returns {
            // What it did before says nothing of it now.
            self.slots = Self::default().slots;
        }
        returns
    }

    /// A request failed; what that is a reason for. `peers`: the median share of successes of the other targets.
    pub fn failed(&mut self, peers: Option<f64>, now: Time) -> Option<Cause> {
        self.slot(now).1 += 1;
        self.consecutive += 1;
        if self.is_aside() {
            return None;
        }
        if self.consecutive >= CONSECUTIVE_MAX {
            return Some(Cause::Consecutive);
        }
        let low =
            self.share(now).zip(peers).is_some_and(|(own, peers)| own < SHARE_MIN && own <= peers - SHARE_BELOW_PEERS);
        low.then_some(Cause::Share)
    }

    /// Puts the target aside; `chance` (0 to 1) spreads the first request after it by 20 % either way.
    pub fn put_aside(&mut self, chance: f64, now: Time) {
        self.probe_at = Some(now + PROBE_EACH.mul_f64(0.8 + 0.4 * chance));
    }

    /// Whether it is put aside.
    pub fn is_aside(&self) -> bool {
        self.probe_at.is_some()
    }

    /// When it may get a request next; zero: at any time.
    pub fn admits_at(&self) -> Time {
        self.probe_at.unwrap_or(Time::ZERO)
    }

    /// A request goes there; if it is put aside, that is the only one for a while.
    pub fn taken(&mut self, now: Time) {
        if let Some(probe_at) = &mut self.probe_at {
            *probe_at = now + PROBE_EACH;
        }
    }

    /// The share of successes in the last ten seconds; `None`: there were too few requests.
    pub fn share(&mut self, now: Time) -> Option<f64> {
        self.slot(now);
        let (ok, failed) = self.slots.iter().fold((0, 0), |(ok, failed), slot| (ok + slot.0, failed + slot.1));
        (ok + failed >= SAMPLES_MIN).then(|| f64::from(ok) / f64::from(ok + failed))
    }

    fn slot(&mut self, now: Time) -> &mut (u32, u32) {
        let second = now.as_secs();
        if second > self.second + SLOTS {
            self.slots = Self::default().slots;
        } else {
            for passed in self.second + 1..=second {
                self.slots[(passed % SLOTS) as usize] = (0, 0);
            }
        }
        self.second = self.second.max(second);
        &mut self.slots[(self.second % SLOTS) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_secs(100);

    #[test]
    fn five_failures_in_a_row_are_enough() {
        let mut health = Health::default();

        let causes: Vec<_> = (0..5).map(|_| health.failed(None, NOW)).collect();

        assert_eq!(causes, [None, None, None, None, Some(Cause::Consecutive)]);
    }

    #[test]
    fn a_low_share_counts_only_beside_better_peers() {
        let causes = [Some(1.0), Some(0.6), None].map(|peers| {
            let mut health = Health::default();
            (0..12)
                .map(|number| {
                    if number % 2 == 0 {
                        health.failed(peers, NOW)
                    } else {
                        health.ok(NOW);
                        None
                    }
                })
                .any(|cause| cause.is_some())
        });

        assert_eq!(causes, [true, false, false]);
    }

    #[test]
    fn one_request_at_a_time_finds_out_whether_it_is_well() {
        let mut health = Health::default();
        health.put_aside(0.5, NOW);
        let soon = NOW + PROBE_EACH;

        let admitted = (health.admits_at() <= NOW, health.admits_at() <= soon);
        health.taken(soon);
        let then = (health.admits_at() <= soon, health.ok(soon), health.admits_at() <= soon);

        assert_eq!((admitted, then), ((false, true), (false, true, true)));
    }
}

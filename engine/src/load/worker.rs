//! One connection of the load: asks, waits for the end of the answer, asks again.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use http::{Request, StatusCode, Uri};
use http_body::Body;
use hyper::body::Incoming;
use tokio::time::Instant;

use super::plan::Plan;
use super::report::{Failure, Recorder};
use crate::proxy::body::SendBody;
use crate::proxy::upstream::Upstream;

/// Pause after a connection that could not be made: a service that is not there must not keep a core busy.
const CONNECT_PAUSE: Duration = Duration::from_millis(5);

/// When the requests of an open loop are to go out; shared by all connections.
pub struct Schedule {
    next: Instant,
    rate: Option<f64>,
    state: u64,
}

impl Schedule {
    /// Arrivals from `start` on, in a Poisson process of `rate` per second drawn from `seed`.
    pub fn new(start: Instant, rate: Option<f64>, seed: u64) -> Self {
        Self { next: start, rate, state: seed }
    }

    /// When the next request is to go out; `None`: as soon as a connection is free.
    fn take(&mut self) -> Option<Instant> {
        let rate = self.rate?;
        let (at, unit) = (self.next, self.unit());
        self.next += Duration::from_secs_f64(-unit.ln() / rate);
        Some(at)
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

/// Asks until stopped.
pub async fn work(
    plan: Rc<Plan>,
    address: SocketAddr,
    schedule: Rc<RefCell<Schedule>>,
    recorder: Rc<RefCell<Recorder>>,
    stopped: Rc<Cell<bool>>,
) {
    let mut kept: Option<Box<Upstream>> = None;
    while !stopped.get() {
        let Some(from) = wait_for_turn(&schedule, &stopped).await else { break };
        let asked = tokio::time::timeout(plan.timeout, ask(&plan, address, kept.take())).await;
        let outcome = match asked {
            Ok(Ok((status, upstream))) => {
                kept = upstream;
                Ok(status)
            }
            Ok(Err(failure)) => Err(failure),
            Err(_) => Err(Failure::Timeout),
        };
        recorder.borrow_mut().note(from, outcome);
        if outcome == Err(Failure::Connect) {
            tokio::time::sleep(CONNECT_PAUSE).await;
        }
    }
}

/// The moment from which the next request's latency counts; `None` once stopped.
async fn wait_for_turn(schedule: &RefCell<Schedule>, stopped: &Cell<bool>) -> Option<Instant> {
    let Some(at) = schedule.borrow_mut().take() else { return Some(Instant::now()) };
    if at <= Instant::now() {
        return Some(at);
    }
    while Instant::now() < at {
        if stopped.get() {
            return None;
        }
        // In short steps, so that a stop is heard though the next request is far away.
        tokio::time::sleep_until(at.min(Instant::now() + Duration::from_millis(50))).await;
    }
    Some(Instant::now())
}

/// One request, to the end of its answer; gives the connection back where it can be used again.
async fn ask(
    plan: &Plan,
    address: SocketAddr,
    kept: Option<Box<Upstream>>,
) -> Result<(StatusCode, Option<Box<Upstream>>), Failure> {
    let mut cx = Context::from_waker(Waker::noop());
    let kept = kept.and_then(|mut upstream| upstream.is_reusable(&mut cx).then_some(upstream));
    let mut upstream = match kept {
        Some(upstream) => upstream,
        None => Upstream::connect(address).await.map_err(|_| Failure::Connect)?,
    };
    let body = if plan.body.is_empty() { SendBody::Empty } else { SendBody::Whole(Some(plan.body.clone())) };
    let mut request = Request::new(body);
    *request.method_mut() = plan.method.clone();
    *request.uri_mut() = plan.url.path_and_query().cloned().map_or_else(|| Uri::from_static("/"), Uri::from);
    *request.headers_mut() = plan.headers.clone();
    let response = upstream.send(request).await.map_err(|_| Failure::Reset)?;
    let status = response.status();
    let mut body = response.into_body();
    poll_fn(|cx| poll_end(&mut body, &mut upstream, cx)).await.map_err(|_| Failure::Reset)?;
    let reusable = upstream.is_reusable(&mut cx);
    Ok((status, reusable.then_some(upstream)))
}

/// Reads a body to its end and throws it away.
fn poll_end(body: &mut Incoming, upstream: &mut Upstream, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
    loop {
        let mut frame = Pin::new(&mut *body).poll_frame(cx);
        if frame.is_pending() {
            upstream.drive(cx);
            frame = Pin::new(&mut *body).poll_frame(cx);
        }
        match ready!(frame) {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Poll::Ready(Err(error)),
            None => return Poll::Ready(Ok(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_come_at_the_rate_and_the_same_for_the_same_seed() {
        let start = Instant::now();
        let (mut one, mut other) = (Schedule::new(start, Some(1000.0), 7), Schedule::new(start, Some(1000.0), 7));

        let ones: Vec<_> = (0..10_000).filter_map(|_| one.take()).collect();
        let others: Vec<_> = (0..10_000).filter_map(|_| other.take()).collect();

        assert_eq!(ones, others);
        let seconds = (ones[9_999] - start).as_secs_f64();
        assert!((9.5..10.5).contains(&seconds), "{seconds}");
    }
}

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
use tokio::time::Instant;

use super::pace::Pace;
use super::plan::Plan;
use super::report::{Failure, Recorder};
use crate::proxy::inflow::Inflow;
use crate::proxy::upload::SendBody;
use crate::proxy::upstream::Upstream;

/// Pause after a connection that could not be made: a service that is not there must not keep a core busy.
const CONNECT_PAUSE: Duration = Duration::from_millis(5);

/// Asks until stopped; `pace` says when, in an open loop.
pub async fn work(
    plan: Rc<Plan>,
    address: SocketAddr,
    pace: Option<Rc<Pace>>,
    recorder: Rc<RefCell<Recorder>>,
    stopped: Rc<Cell<bool>>,
) {
    let mut kept: Option<Box<Upstream>> = None;
    while !stopped.get() {
        let from = match &pace {
            None => Instant::now(),
            Some(pace) => match pace.turn(&stopped).await {
                Some(due) => due,
                None => break,
            },
        };
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
fn poll_end(body: &mut Inflow, upstream: &mut Upstream, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
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

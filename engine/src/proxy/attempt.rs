//! One try at one instance: a connection, the request, the head of the answer. What became of it is noted at
//! the [`Place`], which tells dispatch when it is given back; it is so only after the connection is closed or
//! kept.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Request, Response, StatusCode, Version, response};
use tokio::time::Instant;

use super::answer::{AnswerBody, Held, Source, UpstreamBody, give_back, hold};
use super::body::SMALL_MAX;
use super::client::ClientState;
use super::dial::Failed;
use super::grpc;
use super::headers;
use super::inflow::Inflow;
use super::interim::Relay;
use super::outbound::Outbound;
use super::place::Place;
use super::pools;
use super::problem::Reason;
use super::tunnel::Tunnel;
use super::upstream::Upstream;
use crate::dispatch::Failure;
use crate::table::policy::Protocol;

/// How long the head of a small answer is held back for its body, so that an instance that dies in between
/// costs the client nothing.
const HOLD: Duration = Duration::from_millis(20);

/// How a try ended without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// Not a byte of the request went out.
    Unsent,
    /// It went out, or part of it, over a kept connection that the instance was just about to close.
    Stale,
    /// It went out, or part of it; then the connection broke.
    Broken,
    /// What came back is not HTTP.
    Invalid,
    /// The client did something wrong while its body came in.
    Client,
    /// Time ran out.
    TooLate {
        /// Whether anything went out.
        sent: bool,
    },
}

impl Lost {
    /// Whether any of the request went out, so that it may have happened.
    pub const fn went_out(self) -> bool {
        match self {
            Self::Unsent => false,
            Self::TooLate { sent } => sent,
            Self::Stale | Self::Broken | Self::Invalid | Self::Client => true,
        }
    }

    /// As metrics and access log have it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Unsent => "unsent",
            Self::Stale => "stale",
            Self::Broken => "reset",
            Self::Invalid => "invalid",
            Self::Client => "client",
            Self::TooLate { .. } => "timeout",
        }
    }
}

/// An answer whose head is here. The connection is closed before the place is given back.
pub struct Answered {
    /// Status and headers, as they came.
    pub parts: response::Parts,
    incoming: Inflow,
    upstream: Box<Upstream>,
    /// The request's place, with what is known so far of how it ended.
    pub place: Place,
}

/// Sends the request and waits for the head of its answer, at most until `ends`, which has a
/// reason. `client`: who is told of interim answers.
///
/// # Errors
/// How it ended instead; the place is given back.
pub async fn attempt(
    client: Option<&ClientState>,
    outbound: &Outbound,
    place: Place,
    ends: Option<(Instant, Reason)>,
) -> Result<Answered, Lost> {
    let sent = Cell::new(false);
    let exchange = exchange(client, outbound, &place, &sent);
    let exchanged = match ends {
        Some((ends, reason)) => tokio::time::timeout_at(ends, exchange).await.unwrap_or_else(|_| {
            // A client that waits for less than the service may take says nothing of the instance.
            if reason == Reason::Timeout {
                place.fails(Failure::Timeout);
            }
            Err(Lost::TooLate { sent: sent.get() })
        }),
        None => exchange.await,
    };
    let (upstream, response) = exchanged?;
    let (parts, incoming) = response.into_parts();
    outbound.stamps.see(&parts.headers);
    place.judge(grpc::http_status(parts.status, &parts.headers), &parts.headers);
    Ok(Answered { parts, incoming, upstream, place })
}

async fn exchange(
    client: Option<&ClientState>,
    outbound: &Outbound,
    place: &Place,
    sent: &Cell<bool>,
) -> Result<(Box<Upstream>, Response<Inflow>), Lost> {
    let mut upstream = connection_to(place, outbound).await.ok_or(Lost::Unsent)?;
    let was_used = upstream.used;
    place.target.requests.more();
    sent.set(true);
    let asked = match outbound.plain_head() {
        Some(head) => upstream.ask(&head).await,
        None => Ok(None),
    };
    let answered = match asked {
        Ok(None) => Box::pin(send(client, outbound, &mut upstream)).await,
        Ok(Some(response)) => Ok(response),
        Err(failed) => Err(failed),
    };
    let lost = match answered {
        Ok(response) => return Ok((upstream, response)),
        Err(lost) => lost,
    };
    if outbound.fault().is_some() {
        // The client broke it, and the instance is none the worse for it.
        return Err(Lost::Client);
    }
    Err(match lost {
        Failed::Unsent => {
            sent.set(false);
            if was_used {
                place.distrust();
            } else {
                place.unreachable("it takes a connection and closes it at once");
            }
            Lost::Unsent
        }
        Failed::Broken if was_used && outbound.is_repeatable() => {
            place.distrust();
            Lost::Stale
        }
        Failed::Broken => {
            place.fails(Failure::Reset);
            Lost::Broken
        }
        Failed::Invalid => {
            place.fails(Failure::Reset);
            Lost::Invalid
        }
    })
}

/// Sends the request by way of hyper, and passes on what the instance says before its answer.
async fn send(
    client: Option<&ClientState>,
    outbound: &Outbound,
    upstream: &mut Upstream,
) -> Result<Response<Inflow>, Failed> {
    let relay = Relay::default();
    let mut request = Request::new(outbound.next_body(&relay));
    *request.method_mut() = outbound.method.clone();
    *request.uri_mut() = outbound.uri.clone();
    *request.headers_mut() = outbound.full_headers().into_owned();
    if let Some(deadline) = &outbound.deadline {
        deadline.write(request.headers_mut(), Instant::now());
    }
    outbound.trace.write(request.headers_mut());
    outbound.stamps.write(request.headers_mut());
    relay.attach(&mut request);
    let mut sending = std::pin::pin!(upstream.send(request));
    let client = client.filter(|_| outbound.takes_hints);
    poll_fn(|cx| {
        let polled = sending.as_mut().poll(cx);
        if let Some(client) = client {
            relay.pass_on(&client.wire);
        }
        polled
    })
    .await
}

/// A kept-alive connection or a new one; `None`: none could be made.
async fn connection_to(place: &Place, outbound: &Outbound) -> Option<Box<Upstream>> {
    let connected = if place.target.protocol == Protocol::H2 {
        pools::line(&place.target).await.map(|(line, was_used)| Upstream::of_line(line, was_used))
    } else {
        match pools::take(&place.target, !outbound.is_repeatable(), place.granted_at()) {
            Some(upstream) => Ok(upstream),
            None => Box::pin(Upstream::connect(place.target.address)).await,
        }
    };
    match connected {
        Ok(upstream) => {
            if upstream.used {
                place.reuses();
            } else {
                place.connected();
            }
            Some(upstream)
        }
        Err(error) => {
            place.unreachable(&format!("cannot connect to {}: {error}", place.target.address));
            None
        }
    }
}

/// The answer as the client gets it; a small one only once its body is here, if that does not take long.
///
/// # Errors
/// It broke off before any of it was passed on.
pub async fn pass_on(
    client: &Rc<ClientState>,
    outbound: &Outbound,
    answered: Answered,
) -> Result<Response<AnswerBody>, Lost> {
    if answered.parts.status == StatusCode::SWITCHING_PROTOCOLS {
        return Box::pin(switch(client, outbound, answered)).await;
    }
    let Answered { mut parts, incoming, upstream, place } = answered;
    headers::strip_hop_by_hop(&mut parts.headers);
    parts.version = Version::HTTP_11;
    if let Inflow::Whole(bytes) = incoming {
        place.came_whole();
        give_back(upstream, place, &mut Context::from_waker(Waker::noop()));
        return Ok(Response::from_parts(parts, AnswerBody::new(bytes.into())));
    }
    let body = UpstreamBody::new(incoming, upstream, place);
    // An answer of HTTP/2 may have trailers behind a body of known length.
    let is_small = !body.has_trailers() && body.length().is_some_and(|length| length <= SMALL_MAX);
    let source = if is_small {
        match hold(body, outbound.is_repeatable().then_some(HOLD)).await {
            Held::Whole(bytes) => bytes.into(),
            Held::Part(bytes, rest) => Source::Streamed(bytes, Box::new(rest.begun())),
            Held::Broken => return Err(Lost::Broken),
        }
    } else {
        Source::Streamed(Bytes::new(), Box::new(body.begun()))
    };
    Ok(Response::from_parts(parts, AnswerBody::new(source)))
}

/// Lets an answer go that the client is not to see. If all of it is here, its connection is kept.
pub async fn let_go(answered: Answered) {
    let Answered { incoming, upstream, place, .. } = answered;
    let body = UpstreamBody::new(incoming, upstream, place);
    if body.length().is_some_and(|length| length <= SMALL_MAX) {
        // What it says is of no interest, nor whether it broke off.
        drop(hold(body, None).await);
    }
}

/// Reads an answer to its end for nobody.
pub async fn read_out(answered: Answered) {
    let Answered { incoming, upstream, place, .. } = answered;
    let mut body = UpstreamBody::new(incoming, upstream, place);
    while let Some(Ok(_)) = poll_fn(|cx| body.poll_frame(cx)).await {}
}

/// Both sides leave HTTP.
async fn switch(
    client: &Rc<ClientState>,
    outbound: &Outbound,
    answered: Answered,
) -> Result<Response<AnswerBody>, Lost> {
    let Answered { mut parts, upstream, place, .. } = answered;
    let protocol = parts.headers.get(header::UPGRADE).cloned();
    let (true, Some(protocol)) = (outbound.upgrade, protocol) else {
        drop(upstream);
        place.fails(Failure::Reset);
        return Err(Lost::Invalid);
    };
    place.is_carried();
    headers::strip_hop_by_hop(&mut parts.headers);
    parts.version = Version::HTTP_11;
    parts.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    parts.headers.insert(header::UPGRADE, protocol);
    let Some((io, early)) = upstream.into_tunnel().await else { return Err(Lost::Invalid) };
    client.tunnel(Tunnel::new(io, early, place));
    Ok(Response::from_parts(parts, AnswerBody::new(Source::Ended)))
}

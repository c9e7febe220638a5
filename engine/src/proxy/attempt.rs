//! One try at one instance: a connection, the request, the head of the answer.

use std::future::poll_fn;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Request, Response, StatusCode, Version};
use tokio::time::Instant;

use super::body::{AnswerBody, Held, SMALL_MAX, Source, UpstreamBody, hold};
use super::connection::ClientState;
use super::headers;
use super::interim::Relay;
use super::outbound::Outbound;
use super::pools;
use super::target::Place;
use super::tunnel::Tunnel;
use super::upstream::{Failed, Upstream};

/// How long the head of a small answer is held back for its body, so that an instance that dies in between
/// costs the client nothing.
const HOLD: Duration = Duration::from_millis(20);

/// A kept-alive connection or a new one; `None`: none could be made, and the target is set aside.
pub async fn connection_to(place: &Place, outbound: &Outbound) -> Option<Box<Upstream>> {
    let is_once = !outbound.repeatable;
    if let Some(upstream) = pools::take(&place.target, is_once) {
        return Some(upstream);
    }
    match Upstream::connect(place.target.address).await {
        Ok(upstream) => {
            place.answered();
            Some(upstream)
        }
        Err(error) => {
            place.failed();
            place.refused(&format!("cannot connect to {}: {error}", place.target.address));
            None
        }
    }
}

/// Sends the request and waits for the head of its answer.
///
/// # Errors
/// How it failed; the place is given back.
pub async fn attempt(
    client: &Rc<ClientState>,
    outbound: &mut Outbound,
    mut upstream: Box<Upstream>,
    place: Place,
) -> Result<Response<AnswerBody>, Failed> {
    let was_used = upstream.used;
    let relay = Relay::default();
    let mut request = Request::new(outbound.next_body(&relay));
    *request.method_mut() = outbound.method.clone();
    *request.uri_mut() = outbound.uri.clone();
    *request.headers_mut() = outbound.headers.clone();
    if let Some(deadline) = &outbound.deadline {
        deadline.write(request.headers_mut(), Instant::now());
    }
    relay.attach(&mut request);

    let answered = {
        let mut sending = std::pin::pin!(upstream.send(request));
        poll_fn(|cx| {
            let polled = sending.as_mut().poll(cx);
            relay.pass_on(client);
            polled
        })
        .await
    };
    let response = answered.inspect_err(|failed| {
        place.failed();
        if matches!(failed, Failed::Unsent(_)) && !was_used {
            place.refused("it takes a connection and closes it at once");
        }
    })?;
    let (parts, incoming) = response.into_parts();
    if parts.status == StatusCode::SWITCHING_PROTOCOLS {
        return switch(client, outbound, parts, upstream, place).await;
    }
    pass_on(client, outbound, parts, UpstreamBody::new(incoming, upstream, place)).await
}

/// The answer as the client gets it; a small one only once its body is here, if that does not take long.
async fn pass_on(
    client: &Rc<ClientState>,
    outbound: &Outbound,
    mut parts: http::response::Parts,
    body: UpstreamBody,
) -> Result<Response<AnswerBody>, Failed> {
    headers::strip_hop_by_hop(&mut parts.headers);
    parts.version = Version::HTTP_11;
    let is_small = body.length().is_some_and(|length| length <= SMALL_MAX);
    let source = if is_small {
        match hold(body, outbound.repeatable.then_some(HOLD)).await {
            Held::Whole(bytes) if bytes.is_empty() => Source::Ended,
            Held::Whole(bytes) => Source::Whole(bytes),
            Held::Part(bytes, rest) => Source::Streamed(bytes, rest.begun()),
            Held::Broken => return Err(Failed::Broken),
        }
    } else {
        Source::Streamed(Bytes::new(), body.begun())
    };
    Ok(Response::from_parts(parts, AnswerBody::new(source, Rc::clone(client))))
}

/// Both sides leave HTTP.
async fn switch(
    client: &Rc<ClientState>,
    outbound: &Outbound,
    mut parts: http::response::Parts,
    upstream: Box<Upstream>,
    place: Place,
) -> Result<Response<AnswerBody>, Failed> {
    let protocol = parts.headers.get(header::UPGRADE).cloned();
    let (true, Some(protocol)) = (outbound.upgrade, protocol) else {
        place.failed();
        return Err(Failed::Invalid);
    };
    headers::strip_hop_by_hop(&mut parts.headers);
    parts.version = Version::HTTP_11;
    parts.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    parts.headers.insert(header::UPGRADE, protocol);
    let (io, early) = upstream.into_tunnel().await;
    client.tunnel(Tunnel::new(io, early, place));
    Ok(Response::from_parts(parts, AnswerBody::new(Source::Ended, Rc::clone(client))))
}

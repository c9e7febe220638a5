//! A request from its head to the head of its answer: checked, routed, given a place, sent, and sent again
//! where that is allowed.
//!
//! What may be sent again, and when (RFC 9110 section 9.2.2):
//! * not a byte of it went out: any request;
//! * it went out and no answer began to reach the client: a request that is idempotent by its method or marked
//!   by `Idempotency-Key`, whose body is here in full; at most `attempts` times;
//! * all else: never. The client gets a 502 that says that it may have happened.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::{PathAndQuery, Uri};
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Body;
use hyper::body::Incoming;
use tokio::time::Instant;

use super::backend::{Backend, NoPlace, Place, Policy, Target};
use super::body::{AnswerBody, Held, SMALL_MAX, SendBody, Source, UpstreamBody, hold, read_whole};
use super::connection::ClientState;
use super::head::Framing;
use super::headers::{self, Identity};
use super::interim::Relay;
use super::problem::{Problem, Reason};
use super::route::without_port;
use super::tunnel::Tunnel;
use super::upstream::{Failed, Upstream};
use crate::dispatch::TargetKey;

/// Largest request body that is let through.
const BODY_MAX: u64 = 1 << 30;
/// How long the head of a small answer is held back for its body, so that an instance that dies in between
/// costs the client nothing.
const HOLD: Duration = Duration::from_millis(20);
/// Kept-alive connections found broken that do not count as tries.
const STALE_MAX: u32 = 2;

static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// A request as it is sent to an instance, however often.
struct Outbound {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    payload: Payload,
    /// It may be sent again though it went out.
    repeatable: bool,
    /// It asks to leave HTTP.
    upgrade: bool,
    /// It waits for 100 (Continue).
    expects: bool,
}

enum Payload {
    Empty,
    Whole(Bytes),
    /// Comes in while it is sent, hence once.
    Streamed(Option<SendBody>),
}

/// What a try left behind, for the one who gives up in its middle.
#[derive(Default)]
struct Progress {
    /// A try went out whose outcome is not known to be "nothing happened".
    sent: Cell<bool>,
    /// Where the current try is.
    target: RefCell<Option<Rc<Target>>>,
}

/// Answers a request; never fails, since every failure is an answer.
pub async fn answer(client: Rc<ClientState>, request: Request<Incoming>) -> Response<AnswerBody> {
    let (parts, incoming) = request.into_parts();
    match respond(&client, parts, incoming).await {
        Ok(mut response) => {
            if client.listening.closed.get() {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            response
        }
        Err(problem) => {
            let ends = problem.reason == Reason::BadRequest || client.listening.closed.get();
            let (mut parts, text) = problem.response().into_parts();
            if ends {
                parts.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Response::from_parts(parts, AnswerBody::new(Source::Whole(text.into()), client))
        }
    }
}

async fn respond(client: &Rc<ClientState>, parts: Parts, incoming: Incoming) -> Result<Response<AnswerBody>, Problem> {
    let framing = incoming.size_hint().exact().map_or(Framing::Chunked, Framing::Length);
    if let Some(fault) = client.begin(framing) {
        return Err(Problem::of(Reason::BadRequest, format!("The request is ambiguous: {fault}.")));
    }
    if parts.method == Method::CONNECT {
        return Err(Problem::of(Reason::NoMethod, "CONNECT asks for a tunnel; the gateway makes none."));
    }
    let host = host_of(client, &parts)?;
    let backend = route(client, &host, parts.uri.path())?;
    if let Framing::Length(length) = framing
        && length > BODY_MAX
    {
        let detail = format!("The body has {length} bytes; at most {BODY_MAX} are let through.");
        return Err(Problem::of(Reason::BodyTooLarge, detail).at(&backend.name));
    }
    let mut outbound = outbound(client, parts, incoming, framing, &host).await?;
    let answered = deliver_in_time(&backend, client, &mut outbound).await;
    answered.map_err(|problem| {
        backend.failures.set(backend.failures.get() + 1);
        problem.at(&backend.name)
    })
}

/// The one host that the request names.
fn host_of(client: &ClientState, parts: &Parts) -> Result<HeaderValue, Problem> {
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let (first, second) = (hosts.next(), hosts.next());
    let bad = |detail: &str| Err(Problem::of(Reason::BadRequest, detail));
    if second.is_some() {
        return bad("The request has Host more than once; once would be right.");
    }
    if first.is_none() && parts.version == Version::HTTP_11 {
        return bad("The request has no Host; HTTP/1.1 asks for exactly one.");
    }
    let is_host = |value: &&HeaderValue| {
        value.as_bytes().iter().all(|byte| byte.is_ascii_graphic() && !b"/\\@,?#\"<>".contains(byte))
    };
    match (parts.uri.authority(), first) {
        // A request target in absolute form goes before Host (RFC 9112 section 3.2.2).
        (Some(authority), _) => HeaderValue::from_str(authority.as_str())
            .ok()
            .filter(|value| is_host(&value))
            .map_or_else(|| bad("The host in the request target is not a host."), Ok),
        (None, Some(host)) if is_host(&host) => Ok(host.clone()),
        (None, Some(_)) => bad("Host is not a host name with an optional port."),
        (None, None) => {
            Ok(HeaderValue::try_from(client.listening.address.to_string()).unwrap_or(HeaderValue::from_static("")))
        }
    }
}

fn route(client: &ClientState, host: &HeaderValue, path: &str) -> Result<Rc<Backend>, Problem> {
    let routes = Rc::clone(&client.listening.routes.borrow());
    let name = without_port(host.to_str().unwrap_or_default());
    let found = if client.listening.closed.get() { None } else { routes.find(name, path) };
    found.cloned().ok_or_else(|| {
        let detail =
            format!("No route at {} matches the host {name:?} and the path {path:?}.", client.listening.address);
        Problem::of(Reason::NoRoute, detail)
    })
}

/// Makes the request that an instance gets. A small body is read first, so that a slow client holds no place.
async fn outbound(
    client: &Rc<ClientState>,
    parts: Parts,
    incoming: Incoming,
    framing: Framing,
    host: &HeaderValue,
) -> Result<Outbound, Problem> {
    let Parts { method, uri, mut headers, version, .. } = parts;
    let is_11 = version == Version::HTTP_11;
    let protocol = headers.get(header::UPGRADE).cloned();
    let takes_trailers = is_11 && headers::takes_trailers(&headers);
    let nominated = headers::strip_hop_by_hop(&mut headers);
    let upgrade = is_11 && nominated.upgrade && protocol.is_some() && framing == Framing::Length(0);
    if upgrade && let Some(protocol) = protocol {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, protocol);
    } else if takes_trailers {
        headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    headers.insert(header::HOST, host.clone());
    let identity = Identity {
        client: &client.forwarded_for,
        host,
        forwarded: client.forwarded(host),
        port: client.listening.address.port(),
    };
    headers::set_identity(&mut headers, identity);

    let expects = is_11 && headers.contains_key(header::EXPECT) && framing != Framing::Length(0);
    if !expects {
        headers.remove(header::EXPECT);
    }
    let payload = match framing {
        Framing::Length(0) => Payload::Empty,
        Framing::Length(length) if length <= SMALL_MAX && !expects => {
            let bytes = read_whole(incoming).await.map_err(|error| {
                Problem::of(Reason::BadRequest, format!("The request's body did not come in full: {error}"))
            })?;
            client.body_ended();
            Payload::Whole(bytes)
        }
        _ => Payload::Streamed(Some(SendBody::streamed(incoming, BODY_MAX, Rc::clone(client)))),
    };
    let idempotent = is_idempotent(&method) || headers.contains_key(&IDEMPOTENCY_KEY);
    let repeatable = idempotent && !upgrade && !matches!(payload, Payload::Streamed(_));
    let path = uri.into_parts().path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/"));
    Ok(Outbound { method, uri: path.into(), headers, payload, repeatable, upgrade, expects })
}

fn is_idempotent(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::PUT, Method::DELETE, Method::OPTIONS, Method::TRACE].contains(method)
}

async fn deliver_in_time(
    backend: &Rc<Backend>,
    client: &Rc<ClientState>,
    outbound: &mut Outbound,
) -> Result<Response<AnswerBody>, Problem> {
    let policy = backend.policy.get();
    let progress = Progress::default();
    let delivering = deliver(backend, client, outbound, policy, &progress);
    let Some(limit) = policy.timeout else { return delivering.await };
    tokio::time::timeout(limit, delivering).await.unwrap_or_else(|_| {
        if let Some(target) = progress.target.take() {
            target.failures.set(target.failures.get() + 1);
        }
        let detail = format!("No answer began within {} ms.", limit.as_millis());
        Err(Problem::of(Reason::Timeout, detail).happened(progress.sent.get()))
    })
}

async fn deliver(
    backend: &Rc<Backend>,
    client: &Rc<ClientState>,
    outbound: &mut Outbound,
    policy: Policy,
    progress: &Progress,
) -> Result<Response<AnswerBody>, Problem> {
    let ticket = backend.ticket();
    let mut avoid: Vec<TargetKey> = Vec::new();
    let (mut tries, mut stale) = (0, 0);
    let mut patience = policy.wait;
    loop {
        let began = Instant::now();
        let place = backend.seek(ticket, &avoid, patience).await.map_err(|why| no_place(why, policy, progress))?;
        let (key, target) = (place.key(), Rc::clone(&place.target));
        let connected = connection_to(&place, outbound).await;
        patience = patience.saturating_sub(began.elapsed());
        let Some(upstream) = connected else {
            push_new(&mut avoid, key);
            continue;
        };
        let was_used = upstream.used;
        target.requests.set(target.requests.get() + 1);
        *progress.target.borrow_mut() = Some(target);
        let was_sent = progress.sent.replace(true);
        let tried = attempt(client, outbound, upstream, place).await;
        progress.target.take();
        let failed = match tried {
            Ok(response) => return Ok(response),
            Err(failed) => failed,
        };
        push_new(&mut avoid, key);
        match failed {
            Failed::Unsent(body) => {
                progress.sent.set(was_sent);
                if let Payload::Streamed(slot) = &mut outbound.payload {
                    *slot = body;
                }
                if matches!(outbound.payload, Payload::Streamed(None)) {
                    return Err(broken(outbound, was_sent));
                }
            }
            Failed::Broken if outbound.repeatable && was_used && stale < STALE_MAX => stale += 1,
            Failed::Broken if outbound.repeatable && tries + 1 < policy.attempts => tries += 1,
            Failed::Broken => return Err(broken(outbound, true)),
            Failed::Invalid => {
                let detail = "What the instance answered is not HTTP.";
                return Err(Problem::of(Reason::UpstreamInvalid, detail).happened(true));
            }
        }
    }
}

fn push_new(keys: &mut Vec<TargetKey>, key: TargetKey) {
    if !keys.contains(&key) {
        keys.push(key);
    }
}

fn no_place(why: NoPlace, policy: Policy, progress: &Progress) -> Problem {
    let wait = policy.wait.as_millis();
    let problem = match why {
        NoPlace::QueueFull => Problem::of(Reason::QueueFull, "The service's queue is full."),
        NoPlace::NoTarget => Problem::of(Reason::NoTarget, format!("No instance was ready within {wait} ms.")),
        NoPlace::WaitTimeout => {
            Problem::of(Reason::WaitTimeout, format!("No instance could take the request within {wait} ms."))
        }
    };
    problem.happened(progress.sent.get())
}

fn broken(outbound: &Outbound, maybe: bool) -> Problem {
    let detail = match (maybe, outbound.repeatable) {
        (false, _) => "The instance broke the connection before the request went out. It did not happen.",
        (true, true) => "Every instance that was tried broke the connection before its answer.",
        (true, false) => {
            "The instance broke the connection before its answer. The request may have happened, and is not \
             sent again by itself."
        }
    };
    Problem::of(Reason::UpstreamReset, detail).happened(maybe)
}

/// A kept-alive connection or a new one; `None`: none could be made, and the target is set aside.
async fn connection_to(place: &Place, outbound: &Outbound) -> Option<Box<Upstream>> {
    let is_once = !outbound.repeatable;
    if let Some(upstream) = place.target.pool.take(is_once) {
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

/// One try at one instance.
async fn attempt(
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

impl Outbound {
    fn next_body(&mut self, relay: &Relay) -> SendBody {
        match &mut self.payload {
            Payload::Empty => SendBody::Empty,
            Payload::Whole(bytes) => SendBody::Whole(Some(bytes.clone())),
            Payload::Streamed(body) => {
                let body = body.take().unwrap_or(SendBody::Empty);
                if self.expects { body.gated_by(relay.clone()) } else { body }
            }
        }
    }
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

//! What is asked of a request before it gets near an instance: one host, a route, a body of bounded size.

use std::sync::Arc;

use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{Method, Version};

use super::backend::Backend;
use super::client::ClientState;
use super::head::Framing;
use super::headers::is_chunked_alone;
use super::problem::{Problem, Reason};
use super::route::without_port;
use crate::dispatch::Class;
use crate::sync::lock;

/// Largest request body that is let through.
pub const BODY_MAX: u64 = 1 << 30;

/// A request that may go on.
pub struct Admitted {
    /// The one host that it names.
    pub host: HeaderValue,
    /// Where it goes.
    pub backend: Arc<Backend>,
    /// How early it is served there.
    pub class: Class,
}

/// Looks at a request's head.
///
/// # Errors
/// What the client is told instead of an instance's answer.
pub fn admit(client: &ClientState, parts: &Parts, framing: Framing) -> Result<Admitted, Problem> {
    if let Some(fault) = client.head_fault(framing) {
        return Err(Problem::of(Reason::BadRequest, format!("The request is ambiguous: {fault}.")));
    }
    if framing == Framing::Chunked && !is_chunked_alone(&parts.headers) {
        let detail = "Transfer-Encoding names more than chunked; chunked alone would be right.";
        return Err(Problem::of(Reason::BadRequest, detail));
    }
    // The look at the heads of HTTP/1 sees it there.
    if parts.version == Version::HTTP_2 && parts.headers.get_all(header::CONTENT_LENGTH).iter().nth(1).is_some() {
        let detail = "The request has Content-Length more than once; once would be right.";
        return Err(Problem::of(Reason::BadRequest, detail));
    }
    if parts.method == Method::CONNECT {
        return Err(Problem::of(Reason::NoMethod, "CONNECT asks for a tunnel; the gateway makes none."));
    }
    let host = host_of(client, parts)?;
    if !client.takes_host(&host) {
        let detail = "The request is for a host whose certificate is not the one of this connection; another \
                      connection would be right.";
        return Err(Problem::of(Reason::Misdirected, detail));
    }
    let (backend, class) = route(client, &host, parts.uri.path())?;
    if let Framing::Length(length) = framing
        && length > BODY_MAX
    {
        let detail = format!("The body has {length} bytes; at most {BODY_MAX} are let through.");
        return Err(Problem::of(Reason::BodyTooLarge, detail).at(backend.name()));
    }
    Ok(Admitted { host, backend, class })
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
    if parts.version == Version::HTTP_2 {
        let authority = parts.uri.authority().map(http::uri::Authority::as_str);
        match (authority, first) {
            (None, None) => return bad("The request has neither :authority nor Host; one would be right."),
            (Some(authority), Some(host)) if !authority.as_bytes().eq_ignore_ascii_case(host.as_bytes()) => {
                return bad("The request's :authority and Host are not the same.");
            }
            _ => {}
        }
    }
    let is_host = |value: &&HeaderValue| {
        let is_part = |byte: &u8| {
            byte.is_ascii_graphic() && !matches!(byte, b'/' | b'\\' | b'@' | b',' | b'?' | b'#' | b'"' | b'<' | b'>')
        };
        value.as_bytes().iter().all(is_part)
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

fn route(client: &ClientState, host: &HeaderValue, path: &str) -> Result<(Arc<Backend>, Class), Problem> {
    let routes = Arc::clone(&lock(&client.listening.routes));
    let name = without_port(host.to_str().unwrap_or_default());
    let found = if client.listening.is_closed() { None } else { routes.find(name, path) };
    found.map(|route| (Arc::clone(&route.backend), route.class)).ok_or_else(|| {
        let detail =
            format!("No route at {} matches the host {name:?} and the path {path:?}.", client.listening.address);
        Problem::of(Reason::NoRoute, detail)
    })
}

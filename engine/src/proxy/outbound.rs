//! A request as instances get it, however often: its head made over, its body kept where it is small enough to
//! be sent again.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::{PathAndQuery, Uri};
use http::{Method, Version};

use super::admit::BODY_MAX;
use super::body::{BodyError, SMALL_MAX, read_whole};
use super::client::ClientState;
use super::deadline::Deadline;
use super::grpc;
use super::head::Framing;
use super::headers::{self, Identity, UNISONO_MIRROR};
use super::inflow::Inflow;
use super::interim::Relay;
use super::plain;
use super::problem::{Problem, Reason};
use super::stamps::{Stamps, UNISONO_CLOCK};
use super::upload::{Fault, SendBody, Upload};
use crate::dispatch::Class;
use crate::fields;
use crate::observe::record::Record;
use crate::observe::trace::{TRACEPARENT, Trace};

/// What a head takes up in memory, roughly.
const HEAD_BYTES: usize = 1024;

static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// A request as it is sent to an instance, however often.
pub struct Outbound {
    /// As the client sent it.
    pub method: Method,
    /// Path and query, as they came.
    pub uri: Uri,
    /// What goes on to the instance.
    pub headers: HeaderMap,
    /// Who the client is, still to be said; `None`: the headers say it.
    identity: Option<Rc<Identity>>,
    /// Its body.
    pub payload: Payload,
    /// It may be at two instances at a time: reading, or marked as repeatable.
    pub may_be_doubled: bool,
    /// How early it is served.
    pub class: Class,
    /// Doing it twice is as good as once.
    idempotent: bool,
    /// It asks to leave HTTP.
    pub upgrade: bool,
    /// When the client gives up, where it says so.
    pub deadline: Option<Deadline>,
    /// What it belongs to.
    pub trace: Trace,
    /// The clock that each try is stamped by.
    pub stamps: Arc<Stamps>,
    /// It is all head and asks for nothing that is rare.
    is_plain: bool,
    /// It waits for 100 (Continue).
    expects: bool,
    /// The client may be told of interim answers.
    pub takes_hints: bool,
}

/// The body of a request towards instances.
pub enum Payload {
    /// None.
    Empty,
    /// All of it is here.
    Whole(Bytes),
    /// Comes in while it is sent.
    Streamed(Upload),
}

impl Outbound {
    /// Makes the request that an instance gets, so far without a body.
    pub fn of_head(client: &ClientState, trace: Trace, parts: Parts, framing: Framing, host: &HeaderValue) -> Self {
        let Parts { method, uri, mut headers, version, .. } = parts;
        if version == Version::HTTP_2 {
            headers::join_cookies(&mut headers);
        }
        let asked = headers::strip_hop_by_hop(&mut headers);
        let may_upgrade = version == Version::HTTP_11 && framing == Framing::Length(0);
        let protocol = asked.upgrade.filter(|protocol| may_upgrade && !names_http(protocol));
        let upgrade = protocol.is_some();
        if let Some(protocol) = protocol {
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(header::UPGRADE, protocol);
        } else if asked.trailers && version >= Version::HTTP_11 {
            headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
        if fields::find(&headers, &header::HOST) != Some(host) {
            headers.insert(header::HOST, host.clone());
        }
        fields::remove(&mut headers, &UNISONO_MIRROR);
        headers::drop_claims(&mut headers);
        let mut identity = Some(client.identity(host));
        let asks = fields::find(&headers, &header::EXPECT).is_some();
        let expects = asks && version >= Version::HTTP_11 && framing != Framing::Length(0);
        if asks && !expects {
            headers.remove(header::EXPECT);
        }
        let is_plain = method == Method::GET && framing == Framing::Length(0) && !upgrade && !asked.trailers;
        let stamps = Arc::clone(&client.listening.common.stamps);
        if !is_plain {
            // Else each try writes these itself, which costs less than to find a place for them in a map.
            if let Some(identity) = identity.take() {
                headers::set_identity(&mut headers, &identity);
            }
            trace.write(&mut headers);
            stamps.write(&mut headers);
        }
        let is_marked = fields::find(&headers, &IDEMPOTENCY_KEY).is_some();
        let idempotent = !upgrade && (is_idempotent(&method) || is_marked);
        let reads = [Method::GET, Method::HEAD, Method::OPTIONS].contains(&method);
        let may_be_doubled = !upgrade && (reads || is_marked);
        // HTTP/1.0 knows none (RFC 9110 section 15.2), and in HTTP/2 there is no way past hyper to say one.
        let takes_hints = version == Version::HTTP_11;
        Self {
            method,
            uri: origin_form(uri),
            headers,
            identity,
            payload: Payload::Empty,
            idempotent,
            upgrade,
            may_be_doubled,
            class: Class::default(),
            deadline: None,
            trace,
            stamps,
            is_plain,
            expects,
            takes_hints,
        }
    }

    /// Takes the request's body in. A small one is read to its end, so that a slow client holds no place.
    ///
    /// # Errors
    /// The client broke off.
    pub async fn receive(
        &mut self,
        client: &Rc<ClientState>,
        record: &Record,
        incoming: Inflow,
        framing: Framing,
    ) -> Result<(), Problem> {
        self.payload = match framing {
            Framing::Length(0) => Payload::Empty,
            Framing::Length(length) if length <= SMALL_MAX && !self.expects => {
                let bytes = read_whole(incoming).await.map_err(|error| {
                    let reason =
                        if matches!(error, BodyError::TooSlow) { Reason::BodyTooSlow } else { Reason::BadRequest };
                    Problem::of(reason, format!("The request's body did not come in full: {error}"))
                })?;
                client.wire.body_ended();
                record.inflow().set(bytes.len() as u64);
                Payload::Whole(bytes)
            }
            // In gRPC it is normal that a client has nothing to say for a while.
            _ => {
                self.may_be_doubled = false;
                let is_paced = !grpc::is_grpc(&self.headers);
                Payload::Streamed(Upload::new(incoming, BODY_MAX, Rc::clone(&client.wire), is_paced, record.inflow()))
            }
        };
        Ok(())
    }

    /// The same once more; `None`: it can't be had twice.
    pub fn copied(&self) -> Option<Self> {
        let payload = match &self.payload {
            Payload::Empty => Payload::Empty,
            Payload::Whole(bytes) => Payload::Whole(bytes.clone()),
            Payload::Streamed(_) => return None,
        };
        let (method, uri, headers) = (self.method.clone(), self.uri.clone(), self.headers.clone());
        let (identity, stamps) = (self.identity.clone(), Arc::clone(&self.stamps));
        (!self.upgrade).then(|| Self { method, uri, headers, identity, payload, stamps, ..*self })
    }

    /// Whether it may be sent again though it went out.
    pub fn is_repeatable(&self) -> bool {
        self.idempotent && self.has_body()
    }

    /// The head for one more try; `None`: it is not all that there is to send.
    pub fn plain_head(&self) -> Option<Vec<u8>> {
        let is_plain = self.is_plain && self.deadline.is_none();
        is_plain.then(|| {
            let (trace, stamp) = (self.trace.text(), self.stamps.text());
            let own: [(&HeaderName, &[u8]); 2] = [(&TRACEPARENT, &trace), (&UNISONO_CLOCK, &stamp)];
            let lines = self.identity.as_ref().map_or(&[][..], |identity| &identity.lines);
            plain::head(&self.method, &self.uri, &self.headers, lines, &own)
        })
    }

    /// The headers with who the client is.
    pub fn full_headers(&self) -> Cow<'_, HeaderMap> {
        match &self.identity {
            None => Cow::Borrowed(&self.headers),
            Some(identity) => {
                let mut headers = self.headers.clone();
                headers::set_identity(&mut headers, identity);
                Cow::Owned(headers)
            }
        }
    }

    /// What it takes up in memory, roughly.
    pub fn bytes(&self) -> u64 {
        let body = match &self.payload {
            Payload::Whole(bytes) => bytes.len(),
            Payload::Empty | Payload::Streamed(_) => 0,
        };
        (HEAD_BYTES + body) as u64
    }

    /// Whether it has no body, and was here with its head.
    pub fn is_all_head(&self) -> bool {
        matches!(self.payload, Payload::Empty)
    }

    /// Whether there is a body for one more try.
    pub fn has_body(&self) -> bool {
        !matches!(&self.payload, Payload::Streamed(upload) if !upload.is_here())
    }

    /// What the client did wrong while its body came in.
    pub fn fault(&self) -> Option<Fault> {
        match &self.payload {
            Payload::Streamed(upload) => upload.fault(),
            Payload::Empty | Payload::Whole(_) => None,
        }
    }

    /// The body for one more try.
    pub fn next_body(&self, relay: &Relay) -> SendBody {
        match &self.payload {
            Payload::Empty => SendBody::Empty,
            Payload::Whole(bytes) => SendBody::Whole(Some(bytes.clone())),
            Payload::Streamed(upload) => SendBody::Streamed(upload.reader(self.expects.then(|| relay.clone()))),
        }
    }
}

/// What is asked for without the server that it is asked of. A target in absolute form may have a query and no path,
/// which is to be "/" then (RFC 9112 section 3.2.1).
fn origin_form(uri: Uri) -> Uri {
    let asked = uri.into_parts().path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/"));
    if asked.as_str().starts_with('?')
        && let Ok(whole) = PathAndQuery::try_from(format!("/{}", asked.as_str()))
    {
        return whole.into();
    }
    asked.into()
}

/// Whether what is to be spoken instead is HTTP again: its requests would go past routes and all else that is done here.
/// Nobody needs it (RFC 9113 section 3.1), and who asks may be answered as if it had not (RFC 9110 section 7.8).
fn names_http(protocol: &HeaderValue) -> bool {
    protocol.as_bytes().split(|byte| *byte == b',').any(|token| {
        let name = token.split(|byte| *byte == b'/').next().unwrap_or_default().trim_ascii();
        [&b"h2c"[..], b"h2", b"http"].iter().any(|known| name.eq_ignore_ascii_case(known))
    })
}

fn is_idempotent(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::PUT, Method::DELETE, Method::OPTIONS, Method::TRACE].contains(method)
}

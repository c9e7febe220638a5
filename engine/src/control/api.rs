//! The gateway's own HTTP API, on a Unix socket that file permissions guard. `docs/reference/gateway.md` says
//! what each answer means.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

use super::exposition;
use super::keep;
use crate::proxy::gateway::Gateway;
use crate::table::Table;

/// Largest table that is taken in.
const TABLE_MAX: usize = 64 * 1024 * 1024;
/// Longest wait that `/v1/drained` is asked for; a client may ask again.
const DRAIN_WAIT_MAX: Duration = Duration::from_secs(3600);

/// What the API works on.
pub struct Api {
    /// The gateway.
    pub gateway: Arc<Gateway>,
    /// Where the last table is kept.
    pub table_path: PathBuf,
}

/// Takes connections for as long as the future is polled.
pub async fn serve(api: Rc<Api>, listener: UnixListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::task::spawn_local(serve_one(Rc::clone(&api), stream));
            }
            Err(error) => {
                eprintln!("gateway: cannot accept at the control socket: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn serve_one(api: Rc<Api>, stream: UnixStream) {
    let service = service_fn(|request| {
        let api = Rc::clone(&api);
        async move { Ok::<_, Infallible>(api.answer(request).await) }
    });
    // A caller that goes away in the middle is no fault of the gateway's.
    let _ = Builder::new().header_read_timeout(None).serve_connection(TokioIo::new(stream), service).await;
}

impl Api {
    async fn answer(&self, request: Request<Incoming>) -> Response<Answer> {
        let query = request.uri().query().unwrap_or_default().to_owned();
        match (request.method(), request.uri().path()) {
            (&Method::PUT, "/v1/table") => self.put_table(request.into_body()).await,
            (&Method::GET, "/v1/table") => answer_json(&*self.gateway.table()),
            (&Method::GET, "/v1/drained") => self.drained(&query).await,
            (&Method::GET, "/v1/measurements") => answer_json(&self.measurements()),
            (&Method::GET, "/v1/metrics") => {
                let mut response = Response::new(Answer::Whole(Some(exposition::text(&self.gateway).into())));
                let kind = HeaderValue::from_static(exposition::MEDIA_TYPE);
                response.headers_mut().insert(header::CONTENT_TYPE, kind);
                response
            }
            (&Method::GET, "/v1/events") => {
                let mut response = Response::new(Answer::Events(self.gateway.common.events.listen()));
                let ndjson = HeaderValue::from_static("application/x-ndjson");
                response.headers_mut().insert(header::CONTENT_TYPE, ndjson);
                response
            }
            (method, path) => {
                problem(StatusCode::NOT_FOUND, "No such call", &format!("There is no {method} {path}."), &json!({}))
            }
        }
    }

    async fn put_table(&self, body: Incoming) -> Response<Answer> {
        let unprocessable =
            |fault: &str| problem(StatusCode::UNPROCESSABLE_ENTITY, "Not a routing table", fault, &json!({}));
        let body = match Limited::new(body, TABLE_MAX).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => return unprocessable(&format!("the body did not come in full: {error}")),
        };
        let table = match Table::parse(&body) {
            Ok(table) => table,
            Err(fault) => return unprocessable(&fault),
        };
        let (version, in_force) = (table.version, self.gateway.table().version);
        if version < in_force {
            let detail = format!("Version {version} is older than version {in_force}, which is in force.");
            return problem(StatusCode::CONFLICT, "The table is old", &detail, &json!({ "version": in_force }));
        }
        if let Err(unbound) = self.gateway.follow(table) {
            let unbound: Vec<Value> = unbound
                .iter()
                .map(|one| json!({ "address": one.address.to_string(), "reason": one.reason.to_string() }))
                .collect();
            let detail = "Not every listener can be bound; the table in force is the old one.";
            let more = json!({ "unbound": unbound, "version": in_force });
            return problem(StatusCode::SERVICE_UNAVAILABLE, "A listener cannot be bound", detail, &more);
        }
        // A full disk must not stop instances from coming and going: the table is in force all the same.
        let kept = keep::save(&self.table_path, &self.gateway.table());
        if let Err(error) = &kept {
            eprintln!("gateway: cannot keep the table at {}: {error}", self.table_path.display());
        }
        answer_json(&json!({ "version": version, "kept": kept.is_ok() }))
    }

    async fn drained(&self, query: &str) -> Response<Answer> {
        let fields: HashMap<String, String> =
            query.split('&').filter_map(|pair| pair.split_once('=')).map(decode).collect();
        let number = |name: &str| fields.get(name).and_then(|text| text.parse::<u64>().ok());
        let (Some(instance), Some(generation)) = (fields.get("instance"), number("generation")) else {
            let detail = "instance=ID and generation=NUMBER are needed, timeout_ms=NUMBER is taken.";
            return problem(StatusCode::BAD_REQUEST, "The query is not complete", detail, &json!({}));
        };
        let patience = Duration::from_millis(number("timeout_ms").unwrap_or(0)).min(DRAIN_WAIT_MAX);
        let left = self.gateway.common.accounts.drained(instance, generation, patience).await;
        answer_json(&json!({ "in_flight": left }))
    }

    fn measurements(&self) -> Value {
        let services: BTreeMap<String, Value> = self
            .gateway
            .backends()
            .iter()
            .map(|backend| {
                let targets = backend.targets();
                let in_flight: u64 = targets.iter().map(|target| target.in_flight()).sum();
                let targets: BTreeMap<&str, Value> = targets
                    .iter()
                    .map(|target| {
                        let figures = json!({
                            "in_flight": target.in_flight(),
                            "requests": target.requests.get(),
                            "failures": target.failures.get(),
                        });
                        (target.id.as_str(), figures)
                    })
                    .collect();
                let revisions: BTreeMap<String, Value> =
                    backend.revisions().iter().map(|(name, counted)| (name.clone(), counted.to_json())).collect();
                let figures = json!({
                    "requests": backend.requests.get(),
                    "failures": backend.failures.get(),
                    "waiting": backend.waiting(),
                    "copies_left_out": backend.copies_left_out.get(),
                    "in_flight": in_flight,
                    "targets": targets,
                    "revisions": revisions,
                });
                (backend.name().to_owned(), figures)
            })
            .collect();
        json!({
            "services": services,
            "connections": self.gateway.common.connections.count(),
            "pid": std::process::id(),
            "version": self.gateway.table().version,
            "engine": env!("CARGO_PKG_VERSION"),
        })
    }
}

/// Undoes percent-encoding; what is no valid encoding stays as it is.
fn decode((name, value): (&str, &str)) -> (String, String) {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let code = (*first == b'%').then(|| value_of(behind)).flatten();
        bytes.push(code.unwrap_or(if *first == b'+' { b' ' } else { *first }));
        rest = if code.is_some() { &behind[2..] } else { behind };
    }
    (name.to_owned(), String::from_utf8_lossy(&bytes).into_owned())
}

fn value_of(digits: &[u8]) -> Option<u8> {
    let digits = std::str::from_utf8(digits.get(..2)?).ok()?;
    u8::from_str_radix(digits, 16).ok()
}

fn answer_json(value: &impl serde::Serialize) -> Response<Answer> {
    let text = serde_json::to_vec(value).unwrap_or_default();
    let mut response = Response::new(Answer::Whole(Some(text.into())));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A problem document (RFC 9457) with the fields of `more`.
fn problem(status: StatusCode, title: &str, detail: &str, more: &Value) -> Response<Answer> {
    let mut document = json!({ "type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail });
    if let (Some(document), Some(more)) = (document.as_object_mut(), more.as_object()) {
        document.extend(more.clone());
    }
    let mut response = answer_json(&document);
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("application/problem+json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// A body of the API.
enum Answer {
    Whole(Option<Bytes>),
    Events(mpsc::Receiver<Bytes>),
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Events(events) => events.poll_recv(cx).map(|line| line.map(|line| Ok(Frame::data(line)))),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Events(_) => SizeHint::default(),
        }
    }
}

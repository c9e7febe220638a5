//! The server: one thread that takes connections, answers what is plain and passes on the rest.

use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body::Body;
use http_body_util::{BodyExt, Either, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::{JoinSet, LocalSet};

use super::answer::{Answer, failed, json_answer, problem};
use super::behind::Kept;
use super::forward::forward;
use super::gathering::{self, Gathering, Put, Timestamps};
use super::plain::{Plain, TOKEN, What, count, plain};
use super::replica::{Entry, Replica};
use super::token::Signer;

/// Connections at once; more wait to be accepted.
const CONNECTIONS_MAX: usize = 4096;
/// Bytes of a value that is gathered here; larger ones go to the API.
const VALUE_MAX: u64 = 64 * 1024;
/// Bytes of a request for timestamps.
const COUNT_BYTES_MAX: u64 = 64;
/// How long requests have at the end.
const GRACE: Duration = Duration::from_secs(1);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
const REVISION: &str = "unisono-revision";

/// What the server works with.
pub struct Shared {
    /// The state.
    pub replica: Replica,
    /// Reads and makes consistency tokens.
    pub signer: Signer,
    /// What is to be written.
    pub writes: Gathering<Put>,
    /// Timestamps that are asked for.
    pub timestamps: Gathering<Timestamps>,
    /// The Unix socket of the API behind.
    pub behind: PathBuf,
}

/// Serves at a Unix socket that listens until `ending` says true, and a moment longer what was begun.
///
/// # Errors
/// The socket is none that listens, or there are no descriptors left.
pub fn run(shared: &Arc<Shared>, listener: OwnedFd, ending: watch::Receiver<bool>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = LocalSet::new();
    local.block_on(&runtime, async {
        let listener = std::os::unix::net::UnixListener::from(listener);
        listener.set_nonblocking(true)?;
        serve(shared, &UnixListener::from_std(listener)?, ending).await;
        Ok(())
    })
}

/// A descriptor of this process's once more, as one that is owned.
///
/// # Errors
/// There is none of that number, or no room for another.
pub fn duplicate(descriptor: i32) -> io::Result<OwnedFd> {
    let own = rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty())?;
    Ok(rustix::process::pidfd_getfd(own, descriptor, rustix::process::PidfdGetfdFlags::empty())?)
}

async fn serve(shared: &Arc<Shared>, listener: &UnixListener, mut ending: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    let seen = ending.clone();
    loop {
        tokio::select! {
            _ = ending.changed() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => {
                    connections.spawn_local(connection(Arc::clone(shared), stream, seen.clone()));
                }
                Err(error) => {
                    eprintln!("state: cannot accept: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    let _ = tokio::time::timeout(GRACE, async { while connections.join_next().await.is_some() {} }).await;
}

async fn connection(shared: Arc<Shared>, stream: UnixStream, mut ending: watch::Receiver<bool>) {
    let kept: Kept = Rc::new(RefCell::new(None));
    let service = service_fn(|request| {
        let (shared, kept) = (Arc::clone(&shared), Rc::clone(&kept));
        async move { Ok::<_, Infallible>(answer(&shared, &kept, request).await) }
    });
    let mut builder = Builder::new();
    builder.header_read_timeout(None).auto_date_header(false);
    let mut served = pin!(builder.serve_connection(TokioIo::new(stream), service));
    // A client that goes away in the middle is no fault of the server's.
    tokio::select! {
        _ = served.as_mut() => return,
        _ = ending.changed() => served.as_mut().graceful_shutdown(),
    }
    let _ = served.await;
}

async fn answer(shared: &Shared, kept: &Kept, request: Request<Incoming>) -> Response<Answer> {
    let (head, body) = request.into_parts();
    let has_at_most = |limit| body.size_hint().exact().is_some_and(|length| length <= limit);
    let body = match plain(&head, &shared.replica, &shared.signer) {
        Some(Plain { prefix, what: What::Get(key) }) => {
            if let (Some(entry), revision) = shared.replica.get(&key) {
                return found(shared, &prefix, entry, revision);
            }
            Either::Left(body)
        }
        Some(Plain { prefix, what: What::Put(key) }) if has_at_most(VALUE_MAX) => {
            return put(shared, &prefix, key, body).await;
        }
        Some(Plain { prefix, what: What::Timestamps }) if has_at_most(COUNT_BYTES_MAX) => {
            let Ok(body) = body.collect().await else { return broken_off() };
            let body = body.to_bytes();
            if let Some(count) = count(&body) {
                return timestamps(shared, prefix, count).await;
            }
            // The API says what is wrong.
            Either::Right(Full::new(body))
        }
        _ => Either::Left(body),
    };
    forward(&shared.behind, kept, Request::from_parts(head, body)).await
}

fn found(shared: &Shared, prefix: &str, entry: Entry, revision: u64) -> Response<Answer> {
    let mut response = Response::new(Answer::Whole(Some(entry.value)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::ETAG, text(format!("\"{}\"", entry.modified)));
    headers.insert("unisono-created", entry.created.into());
    headers.insert(TOKEN, text(shared.signer.make(prefix, revision)));
    headers.insert(REVISION, revision.into());
    response
}

async fn put(shared: &Shared, prefix: &str, key: Bytes, body: Incoming) -> Response<Answer> {
    let Ok(body) = body.collect().await else { return broken_off() };
    let value = body.to_bytes();
    let bytes = value.len();
    let Some(waiting) = shared.writes.ask((key, value), bytes) else {
        return problem(StatusCode::SERVICE_UNAVAILABLE, "not-done", "nothing was done: too much waits to be written");
    };
    match waiting.await {
        Ok(gathering::Answer::Done(revision)) => {
            let mut response = json_answer(&json!({"succeeded": true, "revision": revision}));
            let headers = response.headers_mut();
            headers.insert(header::ETAG, text(format!("\"{revision}\"")));
            headers.insert(TOKEN, text(shared.signer.make(prefix, revision)));
            headers.insert(REVISION, revision.into());
            response
        }
        Ok(gathering::Answer::Failed(status, document)) => failed(status, document),
        Err(_) => problem(
            StatusCode::INTERNAL_SERVER_ERROR,
            "maybe-done",
            "the outcome is unknown, it may have been done: the node ended",
        ),
    }
}

async fn timestamps(shared: &Shared, prefix: Arc<str>, count: u32) -> Response<Answer> {
    let Some(waiting) = shared.timestamps.ask((prefix, count), 0) else {
        return problem(StatusCode::SERVICE_UNAVAILABLE, "not-done", "nothing was done: too many wait for timestamps");
    };
    match waiting.await {
        Ok(gathering::Answer::Done(first)) => json_answer(&json!({"first": first.to_string(), "count": count})),
        Ok(gathering::Answer::Failed(status, document)) => failed(status, document),
        // Timestamps that nobody has heard of are only a gap.
        Err(_) => problem(StatusCode::SERVICE_UNAVAILABLE, "not-done", "nothing was done: the node ended"),
    }
}

fn broken_off() -> Response<Answer> {
    problem(StatusCode::BAD_REQUEST, "invalid", "the request broke off")
}

fn text(value: String) -> HeaderValue {
    HeaderValue::try_from(value).unwrap_or_else(|_| unreachable!("digits, base64 and quotes are right in a header"))
}

//! Connections to instances that speak HTTP/2 (`protocol: h2`): each carries many requests at a time. They are driven
//! by tasks of their own, and each belongs to one worker.
//!
//! Frames are not counted here as they are for clients (see [`super::frames`]): an instance can reset only what was
//! asked of it, and h2 answers each PING and SETTINGS before it reads on, so that a flood of them keeps nothing in
//! memory and no other connection waiting.

use std::cell::{Cell, RefCell};
use std::error::Error;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use http::header::{self, HeaderName};
use http::uri::{Authority, Scheme};
use http::{Request, Response, Uri, Version};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::dial::{Failed, dial};
use super::executor::OnThisWorker;
use super::upload::SendBody;
use super::wire::{Wire, WireIo};

/// Requests at a time on one connection; an instance may allow fewer.
const STREAMS_MAX: usize = 100;
/// Bytes of an answer that may be on their way, for each stream.
const STREAM_WINDOW: u32 = 256 * 1024;
/// And for all together: as much as the streams have, or a few clients that take nothing would hold up all others on the
/// connection. By half of it h2 counts how many tiny frames may lie unread, each of which costs up to 256 bytes there:
/// with less it would take the small messages of a few calls for a flood, and end all calls of the connection.
const CONNECTION_WINDOW: u32 = STREAMS_MAX as u32 * STREAM_WINDOW;
const SEND_BUFFER: usize = 64 * 1024;
const HEAD_MAX: u32 = 64 * 1024;
/// A connection that carries nothing is closed after this.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// All connections of one worker to one target.
#[derive(Default)]
pub struct Trunks(Mutex<Vec<Rc<Trunk>>>);

struct Trunk {
    sender: RefCell<SendRequest<SendBody>>,
    /// What the instance allows.
    streams_max: Rc<Cell<usize>>,
    streams: Cell<usize>,
    /// When the last stream ended.
    idle_since: Cell<Instant>,
}

/// One request's part in a connection.
pub struct Line(Rc<Trunk>);

impl Trunks {
    /// A line to the instance at `address`, always the same: on a connection that has room, or on a new one. Only one is made at a time, so that many
    /// requests that come at once share it. True where it has carried requests before.
    ///
    /// # Errors
    /// The kernel's, or that the instance does not speak HTTP/2.
    pub async fn line(&self, address: SocketAddr) -> io::Result<(Line, bool)> {
        let mut trunks = self.0.lock().await;
        trunks.retain(|trunk| !trunk.sender.borrow().is_closed());
        if let Some(trunk) = trunks.iter().find(|trunk| trunk.has_room()) {
            return Ok((Line::new(trunk), true));
        }
        let trunk = Rc::new(connect(address).await?);
        trunks.push(Rc::clone(&trunk));
        Ok((Line::new(&trunk), false))
    }

    /// Closes what has carried nothing for too long; true when something is left.
    pub fn sweep(&self) -> bool {
        // Whoever holds the lock is just making a connection.
        let Ok(mut trunks) = self.0.try_lock() else { return true };
        trunks.retain(|trunk| {
            let is_idle = trunk.streams.get() == 0 && trunk.idle_since.get().elapsed() >= IDLE_MAX;
            !is_idle && !trunk.sender.borrow().is_closed()
        });
        !trunks.is_empty()
    }
}

impl Trunk {
    fn has_room(&self) -> bool {
        self.streams.get() < self.streams_max.get().clamp(1, STREAMS_MAX)
    }
}

async fn connect(address: SocketAddr) -> io::Result<Trunk> {
    let wire = Wire::of_target(dial(address).await?);
    let (sender, mut connection) = Builder::new(OnThisWorker)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(HEAD_MAX)
        .handshake(TokioIo::new(WireIo(wire)))
        .await
        .map_err(io::Error::other)?;
    let streams_max = Rc::new(Cell::new(STREAMS_MAX));
    let allowed = Rc::clone(&streams_max);
    tokio::task::spawn_local(poll_fn(move |cx| {
        // Its end, good or bad, reaches each request through hyper's own channels.
        let ended = Pin::new(&mut connection).poll(cx).map(drop);
        allowed.set(connection.current_max_send_streams());
        ended
    }));
    let idle_since = Cell::new(Instant::now());
    Ok(Trunk { sender: RefCell::new(sender), streams_max, streams: Cell::new(0), idle_since })
}

impl Line {
    fn new(trunk: &Rc<Trunk>) -> Self {
        trunk.streams.set(trunk.streams.get() + 1);
        Self(Rc::clone(trunk))
    }

    /// Sends a request and waits for the head of its answer. Dropping the future resets the stream.
    ///
    /// # Errors
    /// How it failed. What the instance says it has not looked at (GOAWAY with a lower stream, REFUSED_STREAM)
    /// counts as unsent.
    pub async fn send(&self, request: Request<SendBody>) -> Result<Response<Incoming>, Failed> {
        let request = as_http2(request).ok_or(Failed::Invalid)?;
        let sending = self.0.sender.borrow_mut().try_send_request(request);
        sending.await.map_err(|failed| {
            let was_kept = failed.message().is_some();
            if was_kept || is_unlooked_at(failed.error()) { Failed::Unsent } else { how(failed.error()) }
        })
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
        self.0.idle_since.set(Instant::now());
    }
}

/// The request as HTTP/2 has it: the host in its target, and nothing of one connection in its head.
fn as_http2(mut request: Request<SendBody>) -> Option<Request<SendBody>> {
    let headers = request.headers_mut();
    let host = headers.remove(header::HOST)?;
    for name in [header::CONNECTION, header::UPGRADE, header::EXPECT, HeaderName::from_static("keep-alive")] {
        headers.remove(name);
    }
    let mut target = request.uri().clone().into_parts();
    target.scheme = Some(Scheme::HTTP);
    target.authority = Some(Authority::try_from(host.as_bytes()).ok()?);
    *request.uri_mut() = Uri::from_parts(target).ok()?;
    *request.version_mut() = Version::HTTP_2;
    Some(request)
}

fn of_h2(error: &hyper::Error) -> Option<&h2::Error> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

/// Whether the instance says that it has not begun with the request (RFC 9113 sections 6.8 and 8.7).
fn is_unlooked_at(error: &hyper::Error) -> bool {
    of_h2(error).is_some_and(|error| {
        error.is_remote()
            && (error.is_go_away() || (error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM)))
    })
}

fn how(error: &hyper::Error) -> Failed {
    let is_nonsense = of_h2(error).is_some_and(|error| error.is_go_away() && error.is_library());
    if is_nonsense { Failed::Invalid } else { Failed::Broken }
}

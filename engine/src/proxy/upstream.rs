//! Connections to instances: made, kept while idle, checked before they are used again.
//!
//! A connection is polled by whoever uses it and by nobody while it is idle, so that a request costs one task.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::body::SendBody;
use super::head::HEAD_MAX;
use super::wire::{Wire, WireIo};

/// How long an idle connection is kept: below the 5 s after which uvicorn, gunicorn and Node close theirs.
pub const IDLE_MAX: Duration = Duration::from_secs(4);
/// Idle connections kept for one target.
const IDLE_COUNT_MAX: usize = 256;
/// Longest wait for a connection: instances are near, and a full backlog shows as silence.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection to an instance.
pub struct Upstream {
    sender: SendRequest<SendBody>,
    connection: Connection<TokioIo<WireIo>, SendBody>,
    /// Set once the connection is through; it must not be polled then.
    finished: bool,
    wire: Rc<Wire>,
    /// Whether it has carried a request before.
    pub used: bool,
}

/// How a try ended without an answer's head.
pub enum Failed {
    /// Not a byte of the request went out; its body, if it is untouched.
    Unsent(Option<SendBody>),
    /// The request, or part of it, went out; then the connection broke.
    Broken,
    /// What came back is not HTTP.
    Invalid,
}

/// Makes a connection to an instance, on which nothing has been said.
///
/// # Errors
/// The kernel's, or `TimedOut` after [`CONNECT_TIMEOUT`].
pub async fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

impl Upstream {
    /// Makes a connection.
    ///
    /// # Errors
    /// The kernel's, or `TimedOut` after [`CONNECT_TIMEOUT`].
    pub async fn connect(address: SocketAddr) -> io::Result<Box<Self>> {
        let wire = Wire::of_target(dial(address).await?);
        let (sender, connection) = Builder::new()
            .max_buf_size(HEAD_MAX)
            .max_header_size(HEAD_MAX)
            .handshake(TokioIo::new(WireIo(Rc::clone(&wire))))
            .await
            .map_err(io::Error::other)?;
        Ok(Box::new(Self { sender, connection, finished: false, wire, used: false }))
    }

    /// Sends a request and waits for the head of its answer. Dropping the future closes the connection.
    ///
    /// # Errors
    /// How it failed; the connection is of no more use then.
    pub async fn send(&mut self, request: Request<SendBody>) -> Result<Response<Incoming>, Failed> {
        let written_before = self.wire.written();
        let mut answer = std::pin::pin!(self.sender.try_send_request(request));
        let answered = poll_fn(|cx| {
            self.drive(cx);
            answer.as_mut().poll(cx)
        })
        .await;
        answered.map_err(|mut failed| {
            if self.wire.written() == written_before {
                Failed::Unsent(failed.take_message().map(Request::into_body))
            } else if failed.error().is_parse() {
                Failed::Invalid
            } else {
                Failed::Broken
            }
        })
    }

    /// Moves bytes; to be called by whoever waits for something of this connection.
    pub fn drive(&mut self, cx: &mut Context<'_>) {
        // Its end, good or bad, reaches the request or the body through hyper's own channel.
        self.finished = self.finished || self.connection.poll_without_shutdown(cx).is_ready();
    }

    /// Whether it can carry another request: it has answered the last one in full and the peer keeps it.
    pub fn is_reusable(&mut self, cx: &mut Context<'_>) -> bool {
        self.drive(cx);
        !self.finished && self.sender.is_ready()
    }

    /// Whether the kernel, too, knows of nothing from the peer.
    pub fn is_quiet(&self) -> bool {
        self.wire.is_quiet()
    }

    /// The socket and the bytes already read from it, after an answer of 101.
    pub async fn into_tunnel(mut self: Box<Self>) -> (WireIo, Bytes) {
        poll_fn(|cx| {
            self.drive(cx);
            if self.finished { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        let parts = self.connection.into_parts();
        (parts.io.into_inner(), parts.read_buf)
    }
}

/// The idle connections to one target, the youngest last. Each was put in at an epoch of the target; those of
/// an older one are not to be trusted.
#[derive(Default)]
pub struct Pool {
    idle: RefCell<Vec<Idle>>,
}

struct Idle {
    upstream: Box<Upstream>,
    since: Instant,
    epoch: u64,
}

impl Pool {
    /// The connection used last, if it is still good. `ask_kernel` costs a system call and closes the gap in
    /// which the peer has closed and the event loop has not heard of it.
    pub fn take(&self, ask_kernel: bool, epoch: u64) -> Option<Box<Upstream>> {
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            let mut idle = self.idle.borrow_mut().pop()?;
            if idle.is_young(epoch) && idle.upstream.is_reusable(&mut cx) && (!ask_kernel || idle.upstream.is_quiet()) {
                return Some(idle.upstream);
            }
        }
    }

    /// Keeps a connection for the next request, or closes it where there are many.
    pub fn put(&self, upstream: Box<Upstream>, epoch: u64) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < IDLE_COUNT_MAX {
            idle.push(Idle { upstream, since: Instant::now(), epoch });
        }
    }

    /// Closes what has been idle for too long; true when something is left.
    pub fn sweep(&self, epoch: u64) -> bool {
        let mut idle = self.idle.borrow_mut();
        idle.retain(|idle| idle.is_young(epoch));
        !idle.is_empty()
    }
}

impl Idle {
    fn is_young(&self, epoch: u64) -> bool {
        self.epoch == epoch && self.since.elapsed() < IDLE_MAX
    }
}

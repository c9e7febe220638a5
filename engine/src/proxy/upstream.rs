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
use http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use super::dial::{Failed, dial};
use super::head::HEAD_MAX;
use super::headers::{is_chunked_alone, settle_length};
use super::inflow::Inflow;
use super::multiplex::Line;
use super::plain;
use super::upload::SendBody;
use super::wire::{Wire, WireIo};

/// How long an idle connection is kept: below the 5 s after which uvicorn, gunicorn and Node close theirs.
pub const IDLE_MAX: Duration = Duration::from_secs(4);
/// Idle connections kept for one target.
const IDLE_COUNT_MAX: usize = 256;
/// A way to an instance for one request at a time.
pub struct Upstream {
    via: Via,
    /// Whether it has carried a request before.
    pub used: bool,
}

enum Via {
    /// A connection of its own, of HTTP/1.1.
    Own(Own),
    /// A part of one that others use as well, of HTTP/2.
    Shared(Line),
}

struct Own {
    wire: Rc<Wire>,
    /// From the first exchange on that is not [`plain`].
    hyper: Option<Box<Hyper>>,
    /// The last exchange was hyper's.
    by_hyper: bool,
    /// The peer has answered in HTTP/1.0. hyper would send it the next request so too, a body of unknown length without
    /// its bytes.
    is_old: bool,
}

struct Hyper {
    sender: SendRequest<SendBody>,
    connection: Connection<TokioIo<WireIo>, SendBody>,
    /// Set once the connection is through; it must not be polled then.
    finished: bool,
}

impl Upstream {
    /// Makes a connection.
    ///
    /// # Errors
    /// The kernel's, or `TimedOut` after [`CONNECT_TIMEOUT`].
    pub async fn connect(address: SocketAddr) -> io::Result<Box<Self>> {
        let wire = Wire::of_target(dial(address).await?);
        Ok(Box::new(Self { via: Via::Own(Own { wire, hyper: None, by_hyper: false, is_old: false }), used: false }))
    }

    /// A part in a connection of HTTP/2.
    pub fn of_line(line: Line, used: bool) -> Box<Self> {
        Box::new(Self { via: Via::Shared(line), used })
    }

    /// Sends a request that is all head (see [`plain::head`]) and waits for its answer. `None`: the answer is not a
    /// plain one, and [`send`](Self::send) of the same request, which does not go out twice, gives it. Dropping the
    /// future closes the connection.
    ///
    /// # Errors
    /// How it failed; the connection is of no more use then.
    pub async fn ask(&mut self, head: &[u8]) -> Result<Option<Response<Inflow>>, Failed> {
        match &mut self.via {
            Via::Own(own) => own.ask(head).await,
            Via::Shared(_) => Ok(None),
        }
    }

    /// Sends a request and waits for the head of its answer. Dropping the future closes the connection, or resets
    /// its part.
    ///
    /// # Errors
    /// How it failed; the connection is of no more use then.
    pub async fn send(&mut self, request: Request<SendBody>) -> Result<Response<Inflow>, Failed> {
        let answered = match &mut self.via {
            Via::Own(own) => own.send(request).await,
            Via::Shared(line) => line.send(request).await,
        };
        let mut response = answered?;
        let headers = response.headers_mut();
        // Of what is odd in a length hyper minds only what it has to read a body by.
        if !is_chunked_alone(headers) || !settle_length(headers) {
            return Err(Failed::Invalid);
        }
        Ok(response.map(Inflow::Hyper))
    }

    /// Moves bytes; to be called by whoever waits for something of this connection.
    pub fn drive(&mut self, cx: &mut Context<'_>) {
        if let Via::Own(Own { hyper: Some(hyper), by_hyper: true, .. }) = &mut self.via {
            hyper.drive(cx);
        }
    }

    /// Whether it can be kept for another request: it has answered the last one in full and the peer keeps it.
    pub fn is_reusable(&mut self, cx: &mut Context<'_>) -> bool {
        match &mut self.via {
            Via::Own(own) => own.is_reusable(cx),
            // What others use is kept as a whole.
            Via::Shared(_) => false,
        }
    }

    /// Whether others use its connection as well.
    pub fn is_shared(&self) -> bool {
        matches!(self.via, Via::Shared(_))
    }

    /// When the peer last said something.
    fn last_read(&self) -> Instant {
        match &self.via {
            Via::Own(own) => own.wire.last_read(),
            Via::Shared(_) => Instant::now(),
        }
    }

    /// Whether the kernel, too, knows of nothing from the peer.
    pub fn is_quiet(&self) -> bool {
        matches!(&self.via, Via::Own(own) if own.wire.is_quiet())
    }

    /// The socket and the bytes already read from it, after an answer of 101; `None`: no such answer came on it.
    pub async fn into_tunnel(self: Box<Self>) -> Option<(WireIo, Bytes)> {
        let Via::Own(Own { hyper: Some(mut hyper), .. }) = self.via else { return None };
        poll_fn(|cx| {
            hyper.drive(cx);
            if hyper.finished { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        let parts = hyper.connection.into_parts();
        Some((parts.io.into_inner(), parts.read_buf))
    }
}

impl Own {
    async fn ask(&mut self, head: &[u8]) -> Result<Option<Response<Inflow>>, Failed> {
        self.by_hyper = false;
        self.wire.begins();
        let written_before = self.wire.written();
        let mut io = WireIo(Rc::clone(&self.wire));
        if io.write_all(head).await.is_err() {
            return Err(if self.wire.written() == written_before { Failed::Unsent } else { Failed::Broken });
        }
        let bytes = poll_fn(|cx| io.poll_piece(cx)).await.unwrap_or_default();
        if bytes.is_empty() {
            return Err(Failed::Broken);
        }
        let answer = plain::answer(&bytes);
        if answer.is_none() {
            self.wire.replay(bytes);
        }
        Ok(answer)
    }

    async fn send(&mut self, request: Request<SendBody>) -> Result<Response<Incoming>, Failed> {
        self.by_hyper = true;
        self.wire.begins();
        let written_before = self.wire.written();
        let hyper = match &mut self.hyper {
            Some(hyper) => hyper,
            none => none.insert(Hyper::of(&self.wire).await.ok_or(Failed::Broken)?),
        };
        let mut answer = std::pin::pin!(hyper.sender.try_send_request(request));
        let answered = poll_fn(|cx| {
            hyper.finished = hyper.finished || hyper.connection.poll_without_shutdown(cx).is_ready();
            // The answer comes out of the connection, which has just been polled, and from nowhere else: being
            // woken for it would cost one more poll of all that this task holds.
            answer.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        })
        .await;
        let response = answered.map_err(|failed| {
            if self.wire.written() == written_before {
                Failed::Unsent
            } else if failed.error().is_parse() {
                Failed::Invalid
            } else {
                Failed::Broken
            }
        })?;
        self.is_old = response.version() < Version::HTTP_11;
        Ok(response)
    }

    /// What is hyper's asks hyper. Past it nothing was left behind but what the peer may have said since.
    fn is_reusable(&mut self, cx: &mut Context<'_>) -> bool {
        match &mut self.hyper {
            _ if self.is_old => false,
            Some(hyper) if self.by_hyper => {
                hyper.drive(cx);
                !hyper.finished && hyper.sender.is_ready()
            }
            _ => self.wire.is_still(),
        }
    }
}

impl Hyper {
    /// `None`: hyper will not have the connection, which it has no reason for.
    async fn of(wire: &Rc<Wire>) -> Option<Box<Self>> {
        let builder = &mut Builder::new();
        let builder = builder.max_buf_size(HEAD_MAX).max_header_size(HEAD_MAX);
        let (sender, connection) = builder.handshake(TokioIo::new(WireIo(Rc::clone(wire)))).await.ok()?;
        Some(Box::new(Self { sender, connection, finished: false }))
    }

    fn drive(&mut self, cx: &mut Context<'_>) {
        // Its end, good or bad, reaches the request or the body through hyper's own channel.
        self.finished = self.finished || self.connection.poll_without_shutdown(cx).is_ready();
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
    pub fn take(&self, ask_kernel: bool, epoch: u64, now: Instant) -> Option<Box<Upstream>> {
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            let mut idle = self.idle.borrow_mut().pop()?;
            if idle.is_young(epoch, now)
                && idle.upstream.is_reusable(&mut cx)
                && (!ask_kernel || idle.upstream.is_quiet())
            {
                return Some(idle.upstream);
            }
        }
    }

    /// Keeps a connection for the next request, or closes it where there are many.
    pub fn put(&self, upstream: Box<Upstream>, epoch: u64) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < IDLE_COUNT_MAX {
            idle.push(Idle { since: upstream.last_read(), upstream, epoch });
        }
    }

    /// Closes what has been idle for too long; true when something is left.
    pub fn sweep(&self, epoch: u64) -> bool {
        let mut idle = self.idle.borrow_mut();
        let now = Instant::now();
        idle.retain(|idle| idle.is_young(epoch, now));
        !idle.is_empty()
    }
}

impl Idle {
    fn is_young(&self, epoch: u64, now: Instant) -> bool {
        self.epoch == epoch && now.saturating_duration_since(self.since) < IDLE_MAX
    }
}

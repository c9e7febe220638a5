//! One client connection from its acceptance to its end: HTTP by hyper, with the limits on time that hyper
//! does not know, and a tunnel when both sides have agreed to leave HTTP.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderValue, Request};
use hyper::body::Incoming;
use hyper::server::conn::http1::{Builder, Parts};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use super::connections::Seat;
use super::forward;
use super::head::{Framing, HEAD_MAX};
use super::headers;
use super::listen::Listening;
use super::tunnel::Tunnel;
use super::wire::{Wire, WireIo};

/// From the first byte of a head to its last.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// A kept-alive connection without a request; a body of which nothing comes; an answer nothing of which is
/// taken.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// Said before a connection is closed whose time is up; only a client in the middle of a request hears it.
const TIMED_OUT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
/// How long, and how much, is read of a client that still sends when its answer is complete: closing at once
/// would make the kernel throw the answer away.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: usize = 1024 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Between requests, or in the middle of a head.
    Reading,
    /// A request is being answered.
    Answering,
}

/// What is known of a client connection while it lasts.
pub struct ClientState {
    /// Its socket.
    pub wire: Rc<Wire>,
    /// The listener it came in by.
    pub listening: Arc<Listening>,
    /// Its address.
    peer: IpAddr,
    /// Its address as X-Forwarded-For has it.
    pub forwarded_for: HeaderValue,
    /// The Host it named last, with the Forwarded made of it: most clients name one.
    forwarded: RefCell<Option<(HeaderValue, HeaderValue)>>,
    phase: Cell<Phase>,
    since: Cell<Instant>,
    /// A request body has not come to its end.
    uploading: Cell<bool>,
    tunnel: RefCell<Option<Tunnel>>,
}

impl ClientState {
    fn new(wire: Rc<Wire>, listening: Arc<Listening>, peer: SocketAddr) -> Rc<Self> {
        let peer = peer.ip().to_canonical();
        Rc::new(Self {
            wire,
            listening,
            peer,
            forwarded_for: HeaderValue::try_from(peer.to_string()).unwrap_or(HeaderValue::from_static("unknown")),
            forwarded: RefCell::new(None),
            phase: Cell::new(Phase::Reading),
            since: Cell::new(Instant::now()),
            uploading: Cell::new(false),
            tunnel: RefCell::new(None),
        })
    }

    /// A request's head was parsed; says what is wrong with the bytes it was made of.
    pub fn begin(&self, framing: Framing) -> Option<&'static str> {
        self.phase.set(Phase::Answering);
        self.uploading.set(framing != Framing::Length(0));
        self.wire.tap().and_then(|tap| tap.borrow_mut().take_head(framing))
    }

    /// The Forwarded header for a host that the client names.
    pub fn forwarded(&self, host: &HeaderValue) -> HeaderValue {
        let mut last = self.forwarded.borrow_mut();
        match &*last {
            Some((known, forwarded)) if known == host => forwarded.clone(),
            _ => {
                let forwarded = headers::forwarded(self.peer, host);
                *last = Some((host.clone(), forwarded.clone()));
                forwarded
            }
        }
    }

    /// The request's body is not waited for any more.
    pub fn upload_over(&self) {
        self.uploading.set(false);
    }

    /// The request's body came to its end.
    pub fn body_ended(&self) {
        self.upload_over();
        if let Some(tap) = self.wire.tap() {
            tap.borrow_mut().body_ended();
        }
    }

    /// The answer is over.
    pub fn answered(&self) {
        self.phase.set(Phase::Reading);
        self.since.set(Instant::now());
    }

    /// Leaves HTTP once the answer of 101 is out.
    pub fn tunnel(&self, tunnel: Tunnel) {
        *self.tunnel.borrow_mut() = Some(tunnel);
        if let Some(tap) = self.wire.tap() {
            tap.borrow_mut().give_up();
        }
    }

    /// When the connection has had its time if nothing happens until then; `None`: it is not waiting for the
    /// client.
    fn deadline(&self) -> Option<Instant> {
        let waited = match self.phase.get() {
            Phase::Reading => {
                Some(self.head_began().map_or_else(|| self.since.get() + IDLE_TIMEOUT, |began| began + HEAD_TIMEOUT))
            }
            Phase::Answering => self.uploading.get().then(|| self.wire.last_read() + IDLE_TIMEOUT),
        };
        let stalled = self.wire.stalled_since().map(|since| since + IDLE_TIMEOUT);
        waited.into_iter().chain(stalled).min()
    }

    fn head_began(&self) -> Option<Instant> {
        self.wire.tap().and_then(|tap| tap.borrow().began())
    }

    /// The deadline of a head in the middle of which the client is.
    fn head_deadline(&self) -> Option<Instant> {
        (self.phase.get() == Phase::Reading).then(|| self.head_began())?.map(|began| began + HEAD_TIMEOUT)
    }
}

/// Serves a client until it or the gateway has had enough. Never fails: a broken connection just ends.
pub async fn serve(seat: Seat, listening: Arc<Listening>, stream: TcpStream, peer: SocketAddr) {
    let wire = Wire::of_client(stream);
    let client = ClientState::new(Rc::clone(&wire), listening, peer);
    let service = service_fn(|request: Request<Incoming>| {
        let client = Rc::clone(&client);
        Box::pin(async move { Ok::<_, Infallible>(forward::answer(client, request).await) })
    });
    let mut connection = Builder::new()
        .header_read_timeout(None)
        .max_buf_size(HEAD_MAX)
        .max_header_size(HEAD_MAX)
        .serve_connection(TokioIo::new(WireIo(Rc::clone(&wire))), service);

    let timer = std::pin::pin!(tokio::time::sleep(IDLE_TIMEOUT));
    let mut guard = Guard { client: &client, timer, seat, told_to_end: false };
    let ended = poll_fn(|cx| {
        if guard.wants_end(cx) {
            Pin::new(&mut connection).graceful_shutdown();
        }
        if let Poll::Ready(ended) = connection.poll_without_shutdown(cx) {
            return Poll::Ready(Some(ended));
        }
        if guard.is_time_up(cx) { Poll::Ready(None) } else { Poll::Pending }
    })
    .await;
    match ended {
        Some(Err(_)) if client.phase.get() == Phase::Answering => client.wire.abort(),
        Some(_) => {
            let Parts { io, read_buf, .. } = connection.into_parts();
            let tunnel = client.tunnel.borrow_mut().take();
            match tunnel {
                Some(tunnel) => tunnel.run(io.into_inner(), read_buf).await,
                None => linger(io.into_inner()).await,
            }
        }
        None if client.head_deadline().is_some() => client.wire.send_interim(TIMED_OUT),
        None => {}
    }
}

/// What ends a connection from outside.
struct Guard<'a> {
    client: &'a ClientState,
    timer: Pin<&'a mut Sleep>,
    seat: Seat,
    told_to_end: bool,
}

impl Guard<'_> {
    /// True once, when the gateway is going: the connection is to end with its current answer.
    fn wants_end(&mut self, cx: &Context<'_>) -> bool {
        if self.told_to_end {
            return false;
        }
        self.told_to_end = self.seat.is_going(cx);
        self.told_to_end
    }

    /// The timer is only brought forward here and otherwise set when it fires, so that a request costs none.
    fn is_time_up(&mut self, cx: &mut Context<'_>) -> bool {
        if let Some(deadline) = self.client.head_deadline()
            && deadline < self.timer.deadline()
        {
            self.timer.as_mut().reset(deadline);
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            let deadline = self.client.deadline().unwrap_or(now + IDLE_TIMEOUT);
            if deadline <= now {
                return true;
            }
            self.timer.as_mut().reset(deadline);
        }
        false
    }
}

/// Reads what the client still sends, so that what was sent to it arrives.
async fn linger(mut io: WireIo) {
    io.0.shutdown_write();
    let reading = async {
        let mut buffer = [0u8; 4096];
        let mut total = 0;
        while total < LINGER_BYTES_MAX {
            match io.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(count) => total += count,
            }
        }
    };
    // Time running out ends it as well as the client does.
    let _ = tokio::time::timeout(LINGER, reading).await;
}

//! What is known of a client connection while it lasts, whichever version of HTTP is spoken on it, and the limits on
//! time. [`connection`](super::connection) leads it from its acceptance to its end.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, Sleep};

use super::connections::Seat;
use super::head::Framing;
use super::headers::Identity;
use super::listen::Listening;
use super::route::without_port;
use super::tls::Certificates;
use super::tunnel::Tunnel;
use super::wire::{Wire, WireIo};

/// From the first byte of a head to its last.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// A kept-alive connection without a request; an answer nothing of which is taken.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// A connection without a request gives its buffers back after this.
pub const IDLE_BUFFERED: Duration = Duration::from_millis(500);
/// How long, and how much, is read of a client that still sends when its answer is complete: closing at once
/// would make the kernel throw the answer away.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: usize = 1024 * 1024;

/// What is known of a client connection while it lasts.
pub struct ClientState {
    /// Its socket.
    pub wire: Rc<Wire>,
    /// The listener it came in by.
    pub listening: Arc<Listening>,
    /// Its address.
    pub peer: IpAddr,
    /// What instances are told of it, for the Host it named last: most clients name one.
    identity: RefCell<Option<Rc<Identity>>>,
    /// Requests that are being answered.
    open: Cell<usize>,
    /// The head of the last answer is here, and may be on its way.
    begun: Cell<bool>,
    /// When the last answer was over, or the connection began.
    since: Cell<Instant>,
    tunnel: RefCell<Option<Box<Tunnel>>>,
    /// Where TLS is spoken.
    certificates: Option<Arc<Certificates>>,
}

impl ClientState {
    /// Of a connection that has just come in.
    pub fn new(
        wire: Rc<Wire>,
        listening: Arc<Listening>,
        peer: SocketAddr,
        certificates: Option<Arc<Certificates>>,
    ) -> Rc<Self> {
        let peer = peer.ip().to_canonical();
        Rc::new(Self {
            wire,
            listening,
            peer,
            identity: RefCell::new(None),
            open: Cell::new(0),
            begun: Cell::new(false),
            since: Cell::new(Instant::now()),
            tunnel: RefCell::new(None),
            certificates,
        })
    }

    /// Counts a request in until the exchange is dropped.
    pub fn exchange(self: &Rc<Self>) -> Exchange {
        self.open.set(self.open.get() + 1);
        self.begun.set(false);
        Exchange(Rc::clone(self))
    }

    /// Whether a request is being answered.
    pub fn is_answering(&self) -> bool {
        self.open.get() > 0
    }

    /// Whether part of an answer may have gone out, in HTTP/1, where one request is answered at a time.
    pub fn is_amid_answer(&self) -> bool {
        self.is_answering() && self.begun.get()
    }

    /// A request's head was parsed; says what is wrong with the bytes it was made of.
    pub fn head_fault(&self, framing: Framing) -> Option<&'static str> {
        self.wire.heads(|tap| tap.take_head(framing)).flatten()
    }

    /// "http" or "https".
    pub fn scheme(&self) -> &'static str {
        if self.certificates.is_some() { "https" } else { "http" }
    }

    /// Whether a request for a host belongs on this connection; see [`Certificates::belongs`].
    pub fn takes_host(&self, host: &HeaderValue) -> bool {
        let Some(certificates) = &self.certificates else { return true };
        let name = self.wire.tls(|tls| tls.server_name().map(str::to_owned)).flatten();
        certificates.belongs(name.as_deref(), without_port(host.to_str().unwrap_or_default()))
    }

    /// Who the client is that names a host.
    pub fn identity(&self, host: &HeaderValue) -> Rc<Identity> {
        let mut last = self.identity.borrow_mut();
        if let Some(known) = last.as_ref().filter(|known| known.host == host) {
            return Rc::clone(known);
        }
        let port = self.listening.address.port();
        Rc::clone(last.insert(Rc::new(Identity::new(self.peer, port, host, self.scheme()))))
    }

    /// Keeps only what it takes to wait for the next request.
    pub fn rest(&self, unread: &[u8]) {
        *self.identity.borrow_mut() = None;
        self.wire.untap();
        // A copy: what is left of a buffer would keep all of it.
        self.wire.unread(Bytes::copy_from_slice(unread));
    }

    /// Leaves HTTP once the answer of 101 is out.
    pub fn tunnel(&self, tunnel: Tunnel) {
        *self.tunnel.borrow_mut() = Some(Box::new(tunnel));
        self.wire.untap();
    }

    /// Where to, if HTTP was left.
    pub fn take_tunnel(&self) -> Option<Box<Tunnel>> {
        self.tunnel.borrow_mut().take()
    }

    /// When the connection has had its time if no request begins.
    pub fn idle_deadline(&self) -> Instant {
        self.since.get() + IDLE_TIMEOUT
    }

    /// When the connection has had its time if nothing happens until then; `None`: it is not waiting for the
    /// client.
    fn deadline(&self) -> Option<Instant> {
        let waited = (!self.is_answering())
            .then(|| self.head_began().map_or_else(|| self.idle_deadline(), |began| began + HEAD_TIMEOUT));
        let stalled = self.wire.stalled_since().map(|since| since + IDLE_TIMEOUT);
        waited.into_iter().chain(stalled).min()
    }

    fn head_began(&self) -> Option<Instant> {
        self.wire.heads(|tap| tap.began()).flatten()
    }

    /// The deadline of a head in the middle of which the client is.
    pub fn head_deadline(&self) -> Option<Instant> {
        if self.is_answering() { None } else { self.head_began().map(|began| began + HEAD_TIMEOUT) }
    }

    /// Whether there has been no request, and no part of one, for a while.
    fn is_at_rest(&self, now: Instant) -> bool {
        !self.is_answering()
            && self.head_began().is_none()
            && self.wire.stalled_since().is_none()
            && self.since.get() + IDLE_BUFFERED <= now
    }
}

/// A request that is being answered.
pub struct Exchange(Rc<ClientState>);

impl Exchange {
    /// The head of its answer is here.
    pub fn begins(&self) {
        self.0.begun.set(true);
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
        self.0.since.set(Instant::now());
    }
}

/// What ends a connection from outside.
pub struct Guard<'a> {
    client: &'a ClientState,
    timer: Pin<&'a mut Sleep>,
    seat: &'a Seat,
    told_to_end: bool,
}

/// What a look at the clock has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// Nothing.
    GoesOn,
    /// There has been no request for a while.
    AtRest,
    /// The connection has had its time.
    TimeUp,
}

impl<'a> Guard<'a> {
    /// Watches over a connection, with a timer that may be set to anything.
    pub fn new(client: &'a ClientState, timer: Pin<&'a mut Sleep>, seat: &'a Seat) -> Self {
        Self { client, timer, seat, told_to_end: false }
    }

    /// True once, when the gateway is going: the connection is to end with its current answer.
    pub fn wants_end(&mut self, cx: &Context<'_>) -> bool {
        if self.told_to_end {
            return false;
        }
        self.told_to_end = self.seat.is_going(cx);
        self.told_to_end
    }

    /// The timer is only brought forward here and otherwise set when it fires, so that a request costs none.
    pub fn look(&mut self, cx: &mut Context<'_>) -> Clock {
        if let Some(deadline) = self.client.head_deadline()
            && deadline < self.timer.deadline()
        {
            self.timer.as_mut().reset(deadline);
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            let deadline = self.client.deadline().unwrap_or(now + IDLE_TIMEOUT);
            if deadline <= now {
                return Clock::TimeUp;
            }
            if self.client.is_at_rest(now) && !self.told_to_end {
                self.timer.as_mut().reset(deadline);
                return Clock::AtRest;
            }
            let rest = self.client.since.get() + IDLE_BUFFERED;
            self.timer.as_mut().reset(deadline.min(if rest > now { rest } else { now + IDLE_BUFFERED }));
        }
        Clock::GoesOn
    }
}

/// Reads what the client still sends, so that what was sent to it arrives.
pub async fn linger(mut io: WireIo) {
    let reading = async {
        // Whether the client hears of the end shows in what it does.
        let _ = io.shutdown().await;
        let mut buffer = [0u8; 1024];
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

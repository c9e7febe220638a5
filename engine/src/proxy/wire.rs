//! A TCP connection that HTTP is spoken on, shared between hyper, which reads and writes it, and the gateway,
//! which wants to know: has a request been written, since when does the peer say or take nothing, and did a
//! head hold what hyper mends in silence (see [`super::head`]).

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use rustix::net::RecvFlags;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::head::HeadTap;

/// One TCP connection and what is known of it.
pub struct Wire {
    /// Read and written through tokio's own calls, which need it alone for that moment and spare a system call
    /// where a short read says that there is no more.
    stream: RefCell<TcpStream>,
    written: Cell<u64>,
    last_read: Cell<Instant>,
    /// Since when the peer takes nothing although there is something to write.
    stalled_since: Cell<Option<Instant>>,
    /// Whether everything that hyper wrote so far ends at the end of a message.
    flushed: Cell<bool>,
    /// What goes out before hyper's next byte: the rest of an interim answer.
    interim: RefCell<Vec<u8>>,
    tap: Option<RefCell<HeadTap>>,
}

impl Wire {
    /// The connection of a client, whose heads are looked at.
    pub fn of_client(stream: TcpStream) -> Rc<Self> {
        Self::new(stream, Some(RefCell::new(HeadTap::default())))
    }

    /// A connection to an instance.
    pub fn of_target(stream: TcpStream) -> Rc<Self> {
        Self::new(stream, None)
    }

    fn new(stream: TcpStream, tap: Option<RefCell<HeadTap>>) -> Rc<Self> {
        // Small answers must not wait for the peer's acknowledgement; failing to say so only costs speed.
        let _ = stream.set_nodelay(true);
        Rc::new(Self {
            stream: RefCell::new(stream),
            written: Cell::new(0),
            last_read: Cell::new(Instant::now()),
            stalled_since: Cell::new(None),
            flushed: Cell::new(true),
            interim: RefCell::new(Vec::new()),
            tap,
        })
    }

    /// Bytes given to the kernel since the connection began.
    pub fn written(&self) -> u64 {
        self.written.get()
    }

    /// When the peer last sent something.
    pub fn last_read(&self) -> Instant {
        self.last_read.get()
    }

    /// Since when the peer takes nothing of what is to be sent to it.
    pub fn stalled_since(&self) -> Option<Instant> {
        self.stalled_since.get()
    }

    /// The tap on the heads that come in; `None` for a connection to an instance.
    pub fn tap(&self) -> Option<&RefCell<HeadTap>> {
        self.tap.as_ref()
    }

    /// Whether the peer has neither closed the connection nor sent anything, asked of the kernel itself.
    pub fn is_quiet(&self) -> bool {
        let mut byte = [0u8; 1];
        let peeked = rustix::net::recv(&*self.stream.borrow(), &mut byte[..], RecvFlags::PEEK | RecvFlags::DONTWAIT);
        matches!(peeked, Err(rustix::io::Errno::AGAIN))
    }

    /// Sends an interim (1xx) answer between two messages of hyper's. When hyper is in the middle of writing,
    /// it is left out: the client may not rely on it.
    pub fn send_interim(&self, head: &[u8]) {
        if !self.flushed.get() {
            return;
        }
        let mut interim = self.interim.borrow_mut();
        let sent = if interim.is_empty() { self.stream.borrow().try_write(head).unwrap_or(0) } else { 0 };
        interim.extend_from_slice(&head[sent..]);
    }

    /// Tells the peer that nothing more comes.
    pub fn shutdown_write(&self) {
        // A peer that is gone already cannot be told.
        let _ = rustix::net::shutdown(&*self.stream.borrow(), rustix::net::Shutdown::Write);
    }

    /// Lets the connection end in a reset once it is dropped, so that an answer that broke off does not pass for
    /// a complete one.
    pub fn abort(&self) {
        // Without it the client sees an end where it should see a reset; most notice by the length.
        let _ = self.stream.borrow().set_zero_linger();
    }

    fn note_read(&self, bytes: &[u8]) {
        self.last_read.set(Instant::now());
        if let Some(tap) = &self.tap {
            tap.borrow_mut().note(bytes);
        }
    }

    /// Accounts for a write that was tried.
    fn note_write(&self, tried: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &tried {
            Poll::Pending if self.stalled_since.get().is_none() => self.stalled_since.set(Some(Instant::now())),
            Poll::Ready(Ok(count)) => {
                self.stalled_since.set(None);
                self.written.set(self.written.get() + *count as u64);
            }
            _ => {}
        }
        tried
    }

    fn poll_interim(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut interim = self.interim.borrow_mut();
        while !interim.is_empty() {
            let count = ready!(self.note_write(Pin::new(&mut *self.stream.borrow_mut()).poll_write(cx, &interim)))?;
            interim.drain(..count);
        }
        Poll::Ready(Ok(()))
    }
}

/// A [`Wire`] as hyper takes it.
pub struct WireIo(pub Rc<Wire>);

impl AsyncRead for WireIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut *self.0.stream.borrow_mut()).poll_read(cx, buf))?;
        self.0.note_read(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for WireIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.0.poll_interim(cx))?;
        self.0.flushed.set(false);
        self.0.note_write(Pin::new(&mut *self.0.stream.borrow_mut()).poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.0.poll_interim(cx))?;
        self.0.flushed.set(false);
        self.0.note_write(Pin::new(&mut *self.0.stream.borrow_mut()).poll_write_vectored(cx, bytes))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper flushes once it has given away all it had, so this is the end of what it wants to say.
        self.0.flushed.set(true);
        self.0.poll_interim(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.shutdown_write();
        Poll::Ready(Ok(()))
    }
}

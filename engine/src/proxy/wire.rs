//! A TCP connection that HTTP is spoken on, shared between hyper, which reads and writes it, and the gateway,
//! which wants to know: has a request been written, since when does the peer say or take nothing, and did a
//! head hold what hyper mends in silence (see [`super::head`]). TLS, where it is spoken, lies below.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes};
use rustix::net::RecvFlags;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::frames::FrameTap;
use super::head::HeadTap;
use super::piled::Piled;
use super::stream::Stream;

/// What is read at once past hyper; a message whose head is longer is hyper's.
pub const PIECE: usize = 8192;

/// Who looks at what comes in.
#[derive(Default)]
enum Tap {
    #[default]
    None,
    Heads(HeadTap),
    /// In a box, so that a connection that waits for its first words is small.
    Frames(Box<FrameTap>),
}

/// How far hyper has been told of an exchange that began without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Replay {
    /// There is none.
    None,
    /// It is to write the request, which the peer has got already, and reads nothing before.
    Request,
    /// It reads the answer.
    Answer,
}

/// One TCP connection and what is known of it.
pub struct Wire {
    /// Read and written through tokio's own calls, which need it alone for that moment and spare a system call
    /// where a short read says that there is no more.
    stream: RefCell<Stream>,
    /// What was read before HTTP began, or past hyper, and is read first.
    early: RefCell<Bytes>,
    replay: Cell<Replay>,
    written: Cell<u64>,
    last_read: Cell<Instant>,
    /// Since when the peer takes nothing although there is something to write.
    stalled_since: Cell<Option<Instant>>,
    /// Whether everything that hyper wrote so far ends at the end of a message.
    flushed: Cell<bool>,
    /// What goes out before hyper's next byte: the rest of an interim answer.
    interim: RefCell<Vec<u8>>,
    tap: RefCell<Tap>,
}

impl Wire {
    /// The connection of a client.
    pub fn of_client(stream: Stream) -> Rc<Self> {
        Self::new(stream)
    }

    /// A connection to an instance.
    pub fn of_target(stream: TcpStream) -> Rc<Self> {
        Self::new(Stream::Clear(stream))
    }

    fn new(stream: Stream) -> Rc<Self> {
        // Small answers must not wait for the peer's acknowledgement; failing to say so only costs speed.
        let _ = stream.socket().set_nodelay(true);
        Rc::new(Self {
            stream: RefCell::new(stream),
            early: RefCell::default(),
            replay: Cell::new(Replay::None),
            written: Cell::new(0),
            last_read: Cell::new(Instant::now()),
            stalled_since: Cell::new(None),
            flushed: Cell::new(true),
            interim: RefCell::new(Vec::new()),
            tap: RefCell::default(),
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

    /// Looks at the heads of HTTP/1 that come in from now on.
    pub fn tap_heads(&self) {
        *self.tap.borrow_mut() = Tap::Heads(HeadTap::default());
    }

    /// Looks at the frames of HTTP/2 that come in from now on.
    pub fn tap_frames(&self) {
        *self.tap.borrow_mut() = Tap::Frames(Box::default());
    }

    /// Looks at nothing any more, and keeps nothing of it.
    pub fn untap(&self) {
        *self.tap.borrow_mut() = Tap::None;
    }

    /// Asks the tap on heads, where there is one.
    pub fn heads<T>(&self, ask: impl FnOnce(&mut HeadTap) -> T) -> Option<T> {
        match &mut *self.tap.borrow_mut() {
            Tap::Heads(tap) => Some(ask(tap)),
            Tap::None | Tap::Frames(_) => None,
        }
    }

    /// Whether the next head could not be looked at: the body before it, of unknown length, was not read to its end.
    pub fn has_lost_place(&self) -> bool {
        self.heads(|tap| tap.is_lost()).unwrap_or(false)
    }

    /// A body came in to its end.
    pub fn body_ended(&self) {
        self.heads(HeadTap::body_ended);
    }

    /// What the client does too much of, in HTTP/2.
    pub fn flood(&self) -> Option<&'static str> {
        match &*self.tap.borrow() {
            Tap::Frames(tap) => tap.flood(),
            Tap::None | Tap::Heads(_) => None,
        }
    }

    /// Tells of the tiny frames that lie unread, in HTTP/2.
    pub fn piled(&self, tell: impl FnOnce(&mut Piled)) {
        if let Tap::Frames(tap) = &mut *self.tap.borrow_mut() {
            tell(&mut tap.piled);
        }
    }

    /// Ready when what comes in may be read.
    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut *self.tap.borrow_mut() {
            Tap::Frames(tap) => tap.piled.poll_room(cx),
            Tap::None | Tap::Heads(_) => Poll::Ready(()),
        }
    }

    /// Bytes that were read already; whoever reads gets them first.
    pub fn unread(&self, bytes: Bytes) {
        *self.early.borrow_mut() = bytes;
    }

    /// A request was written past hyper, and `answer` is what has come of its answer: hyper is to have the whole exchange
    /// as if it were its own. What it writes until the next one [begins](Self::begins) is that request once more,
    /// and goes nowhere.
    pub fn replay(&self, answer: Bytes) {
        self.unread(answer);
        self.replay.set(Replay::Request);
    }

    /// An exchange begins. What is written goes out, but for the one that hyper is to be told of first.
    pub fn begins(&self) {
        if self.replay.get() == Replay::Answer {
            self.replay.set(Replay::None);
        }
    }

    /// Whether the event loop, or else the kernel, knows of nothing from the peer.
    pub fn is_still(&self) -> bool {
        self.stream.borrow().socket().try_io(Interest::READABLE, || Ok(())).is_err() || self.is_quiet()
    }

    /// The host that the client asked for in TLS, and what it chose to speak.
    pub fn tls<T>(&self, ask: impl FnOnce(&rustls::ServerConnection) -> T) -> Option<T> {
        match &*self.stream.borrow() {
            Stream::Tls(stream) => Some(ask(stream.get_ref().1)),
            Stream::Clear(_) => None,
        }
    }

    /// Whether the peer has neither closed the connection nor sent anything, asked of the kernel itself.
    pub fn is_quiet(&self) -> bool {
        let mut byte = [0u8; 1];
        let peeked =
            rustix::net::recv(self.stream.borrow().socket(), &mut byte[..], RecvFlags::PEEK | RecvFlags::DONTWAIT);
        matches!(peeked, Err(rustix::io::Errno::AGAIN))
    }

    /// Sends an interim (1xx) answer between two messages of hyper's. When hyper is in the middle of writing, or the
    /// client has not taken the last one, it is left out: the client may not rely on it.
    pub fn send_interim(&self, head: &[u8]) {
        let mut interim = self.interim.borrow_mut();
        if !self.flushed.get() || !interim.is_empty() {
            return;
        }
        interim.extend_from_slice(head);
        drop(interim);
        // What does not go out now goes before hyper's next byte.
        let _ = self.poll_interim(&mut Context::from_waker(Waker::noop()));
    }

    fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self.stream.borrow_mut() {
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Clear(stream) => Poll::Ready(Ok(rustix::net::shutdown(&*stream, rustix::net::Shutdown::Write)?)),
        }
    }

    /// Lets the connection end in a reset once it is dropped, so that an answer that broke off does not pass for
    /// a complete one.
    pub fn abort(&self) {
        // Without it the client sees an end where it should see a reset; most notice by the length.
        let _ = self.stream.borrow().socket().set_zero_linger();
    }

    fn note_read(&self, bytes: &[u8]) {
        let now = Instant::now();
        self.last_read.set(now);
        match &mut *self.tap.borrow_mut() {
            Tap::None => {}
            Tap::Heads(tap) => tap.note(bytes, now),
            Tap::Frames(tap) => tap.note(bytes, now),
        }
    }

    /// Accounts for a write that was tried.
    fn note_write(&self, tried: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &tried {
            Poll::Pending if self.stalled_since.get().is_none() => self.stalled_since.set(Some(Instant::now())),
            Poll::Ready(Ok(count)) => {
                self.stalled_since.set(None);
                self.written.set(self.written.get() + *count as u64);
                if let Tap::Frames(tap) = &mut *self.tap.borrow_mut() {
                    tap.sent(*count);
                }
            }
            _ => {}
        }
        tried
    }

    fn poll_interim(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut interim = self.interim.borrow_mut();
        while !interim.is_empty() {
            let count = ready!(self.note_write(self.stream.borrow_mut().poll_write(cx, &interim)))?;
            interim.drain(..count);
        }
        self.poll_flush(cx)
    }

    /// Takes what hyper says in a replay, of so many bytes; false: there is none.
    fn swallow(&self, count: usize, cx: &Context<'_>) -> bool {
        match self.replay.get() {
            Replay::None => return false,
            Replay::Request => {
                self.replay.set(Replay::Answer);
                // hyper looked for the answer before, in vain, and is to look again.
                cx.waker().wake_by_ref();
            }
            Replay::Answer => {}
        }
        self.written.set(self.written.get() + count as u64);
        true
    }

    fn poll_before_write(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.interim.borrow().is_empty() {
            ready!(self.poll_interim(cx))?;
        }
        self.flushed.set(false);
        Poll::Ready(Ok(()))
    }

    fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = self.stream.borrow_mut().poll_flush(cx);
        self.stalled_since.set(if flushed.is_ready() {
            None
        } else {
            Some(self.stalled_since.get().unwrap_or_else(Instant::now))
        });
        flushed
    }
}

/// A [`Wire`] as hyper takes it.
pub struct WireIo(pub Rc<Wire>);

impl WireIo {
    /// What has come in, at most [`PIECE`] bytes; nothing: the peer has nothing more to say. It is a copy that is no
    /// larger than what was said, since it is kept for as long as the message is: buffers of one size for
    /// all would be taken and given back so often that the kernel had to make their pages anew.
    ///
    /// # Errors
    /// The kernel's.
    pub fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        let mut space = [MaybeUninit::uninit(); PIECE];
        let mut buffer = ReadBuf::uninit(&mut space);
        ready!(Pin::new(self).poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(Bytes::copy_from_slice(buffer.filled())))
    }
}

impl AsyncRead for WireIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(self.0.poll_room(cx));
        if self.0.replay.get() == Replay::Request {
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let mut early = self.0.early.borrow_mut();
        if early.is_empty() {
            ready!(self.0.stream.borrow_mut().poll_read(cx, buf))?;
        } else {
            let count = early.len().min(buf.remaining());
            buf.put_slice(&early[..count]);
            early.advance(count);
        }
        self.0.note_read(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for WireIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.0.swallow(bytes.len(), cx) {
            return Poll::Ready(Ok(bytes.len()));
        }
        ready!(self.0.poll_before_write(cx))?;
        self.0.note_write(self.0.stream.borrow_mut().poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let count = bytes.iter().map(|part| part.len()).sum();
        if self.0.swallow(count, cx) {
            return Poll::Ready(Ok(count));
        }
        ready!(self.0.poll_before_write(cx))?;
        self.0.note_write(self.0.stream.borrow_mut().poll_write_vectored(cx, bytes))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper flushes once it has given away all it had, so this is the end of what it wants to say.
        self.0.flushed.set(true);
        self.0.poll_interim(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_shutdown(cx)
    }
}

//! A request's body that is passed on as it comes in. Its beginning, up to 64 KiB, is kept, so that a request whose
//! body is no longer than that, or has not got that far, can go to another instance from its start.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::body::{BodyError, SMALL_MAX};
use super::inflow::Inflow;
use super::interim::Relay;
use super::pace::Pace;
use super::piled::{self, Piled};
use super::wire::Wire;

/// How long an instance may keep silent on `Expect: 100-continue` before the body is sent all the same.
const EXPECT_PATIENCE: Duration = Duration::from_secs(1);

/// A request's body towards an instance.
pub enum SendBody {
    /// None.
    Empty,
    /// All of it is here.
    Whole(Option<Bytes>),
    /// It is still coming in.
    Streamed(Reader),
}

impl Body for SendBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Streamed(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Whole(bytes) => bytes.is_none(),
            Self::Streamed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Streamed(body) => body.size_hint(),
        }
    }
}

/// What the client did wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It broke off.
    Broken,
    /// It sent more than the gateway lets through.
    TooLarge,
    /// It sent too slowly.
    TooSlow,
}

/// A body that is coming in; whoever holds it may have it sent again.
pub struct Upload(Rc<RefCell<State>>);

struct State {
    incoming: Inflow,
    length: Option<u64>,
    /// Bytes that may still come.
    allowance: u64,
    /// Bytes that have come.
    received: Rc<Cell<u64>>,
    wire: Rc<Wire>,
    /// `None`: the client may be silent for as long as it likes.
    pace: Option<Pace>,
    /// All that came; `None`: it is too much to be kept.
    kept: Option<Vec<Bytes>>,
    kept_bytes: u64,
    trailers: Option<HeaderMap>,
    ended: bool,
    fault: Option<Fault>,
    /// The one who may read: the body goes to one instance at a time.
    reader: u64,
}

impl Upload {
    /// A body of at most `allowance` bytes; `is_paced`: the client must send at a least pace. `received` counts
    /// the bytes that have come.
    pub fn new(incoming: Inflow, allowance: u64, wire: Rc<Wire>, is_paced: bool, received: Rc<Cell<u64>>) -> Self {
        wire.piled(Piled::began);
        Self(Rc::new(RefCell::new(State {
            length: incoming.size_hint().exact(),
            incoming,
            allowance,
            received,
            wire,
            pace: is_paced.then(Pace::default),
            kept: Some(Vec::new()),
            kept_bytes: 0,
            trailers: None,
            ended: false,
            fault: None,
            reader: 0,
        })))
    }

    /// The body from its start, for one try; former readers get no more. `relay`: the body waits until the
    /// instance has asked for it there or kept silent for a second.
    pub fn reader(&self, relay: Option<Relay>) -> Reader {
        let mut state = self.0.borrow_mut();
        state.reader += 1;
        let gate = relay.map(|relay| (relay, Box::pin(tokio::time::sleep(EXPECT_PATIENCE))));
        Reader { state: Rc::clone(&self.0), number: state.reader, at: 0, gave_trailers: false, gate }
    }

    /// Whether there is a body from its start for one more try.
    pub fn is_here(&self) -> bool {
        let state = self.0.borrow();
        state.kept.is_some() && state.fault.is_none()
    }

    /// What the client did wrong.
    pub fn fault(&self) -> Option<Fault> {
        self.0.borrow().fault
    }
}

/// A body on its way to one instance.
pub struct Reader {
    state: Rc<RefCell<State>>,
    number: u64,
    /// Pieces that were given already.
    at: usize,
    gave_trailers: bool,
    /// Holds the body back until the instance asks for it.
    gate: Option<(Relay, Pin<Box<tokio::time::Sleep>>)>,
}

impl Body for Reader {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if let Some((relay, patience)) = &mut this.gate {
            if !relay.wants_body() {
                ready!(patience.as_mut().poll(cx));
            }
            this.gate = None;
        }
        let mut state = this.state.borrow_mut();
        if state.reader != this.number {
            return Poll::Ready(Some(Err(BodyError::Superseded)));
        }
        if let Some(piece) = state.kept.as_ref().and_then(|kept| kept.get(this.at)) {
            this.at += 1;
            return Poll::Ready(Some(Ok(Frame::data(piece.clone()))));
        }
        if let Some(trailers) = state.trailers.as_ref().filter(|_| !this.gave_trailers) {
            this.gave_trailers = true;
            return Poll::Ready(Some(Ok(Frame::trailers(trailers.clone()))));
        }
        if state.ended {
            return Poll::Ready(None);
        }
        let frame = ready!(state.poll_incoming(cx));
        this.at += 1;
        this.gave_trailers |= matches!(&frame, Some(Ok(frame)) if frame.is_trailers());
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let state = self.state.borrow();
        let is_read = self.at >= state.kept.as_ref().map_or(0, Vec::len);
        is_read && (self.gave_trailers || state.trailers.is_none()) && (state.ended || state.incoming.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.state.borrow().length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl State {
    fn poll_incoming(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(cx) else {
            let Some(pace) = &mut self.pace else { return Poll::Pending };
            ready!(pace.poll_too_slow(cx));
            return Poll::Ready(Some(Err(self.fails(Fault::TooSlow, BodyError::TooSlow))));
        };
        Poll::Ready(match frame {
            None => {
                self.ends();
                None
            }
            Some(Err(error)) => Some(Err(self.fails(Fault::Broken, BodyError::Broken(error)))),
            Some(Ok(frame)) => Some(self.note(frame)),
        })
    }

    fn note(&mut self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, BodyError> {
        if let Some(trailers) = frame.trailers_ref() {
            self.trailers = Some(trailers.clone());
            // Nothing comes behind them, and nobody may ask.
            self.ends();
        }
        let Some(data) = frame.data_ref() else { return Ok(frame) };
        if piled::is_tiny(data.len()) {
            self.wire.piled(Piled::taken);
        }
        let length = data.len() as u64;
        if let Some(pace) = &mut self.pace {
            pace.came(length);
        }
        if length > self.allowance {
            return Err(self.fails(Fault::TooLarge, BodyError::TooLarge));
        }
        self.allowance -= length;
        self.received.set(self.received.get() + length);
        self.kept_bytes += length;
        if self.kept_bytes > SMALL_MAX {
            self.kept = None;
        } else if let Some(kept) = &mut self.kept {
            kept.push(data.clone());
        }
        Ok(frame)
    }

    fn ends(&mut self) {
        self.ended = true;
        self.wire.body_ended();
    }

    fn fails(&mut self, fault: Fault, error: BodyError) -> BodyError {
        self.fault.get_or_insert(fault);
        error
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.wire.piled(Piled::ended);
    }
}

//! Bodies on their way: a request's towards an instance, an answer's towards a client. Neither is kept beyond
//! the chunk in hand, save for what is small enough to be sent again.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};

use super::connection::Exchange;
use super::inflow::Inflow;
use super::pace::Pace;
use super::target::Place;
use super::upload::Reader;
use super::upstream::Upstream;
use crate::dispatch::Failure;
use crate::observe::record::Record;

/// Largest body that is kept so that it can be sent again, and largest answer that is held back.
pub const SMALL_MAX: u64 = 64 * 1024;

/// Why a body ended before its end.
#[derive(Debug)]
pub enum BodyError {
    /// The side that sends it broke off.
    Broken(hyper::Error),
    /// It is longer than the gateway lets through.
    TooLarge,
    /// The client sends it too slowly; see [`super::pace`].
    TooSlow,
    /// Another try has begun to send it.
    Superseded,
}

impl std::fmt::Display for BodyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Broken(error) => write!(f, "the body broke off: {error}"),
            Self::TooLarge => f.write_str("the body is larger than the gateway lets through"),
            Self::TooSlow => f.write_str("the body comes too slowly; 256 bytes a second would be right"),
            Self::Superseded => f.write_str("the body goes to another instance now"),
        }
    }
}

impl std::error::Error for BodyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Broken(error) => Some(error),
            Self::TooLarge | Self::TooSlow | Self::Superseded => None,
        }
    }
}

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

/// An answer's body as it comes from an instance. The request is in flight there until its end.
pub struct UpstreamBody {
    incoming: Inflow,
    /// `None` once the end was reached and the connection went back to its pool.
    held: Option<(Box<Upstream>, Place)>,
    /// The client has got, or is getting, the head: it cannot be answered otherwise any more.
    begun: bool,
}

impl UpstreamBody {
    /// The body behind a head that `upstream` has just given.
    pub fn new(incoming: Inflow, upstream: Box<Upstream>, place: Place) -> Self {
        Self { incoming, held: Some((upstream, place)), begun: false }
    }

    /// The body of an answer that the client is getting from now on.
    #[must_use]
    pub fn begun(mut self) -> Self {
        self.begun = true;
        self
    }

    /// Reads on. At the end the connection is kept for others if it is good, and the place given back.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut frame = Pin::new(&mut self.incoming).poll_frame(cx);
        if frame.is_pending()
            && let Some((upstream, _)) = &mut self.held
        {
            upstream.drive(cx);
            frame = Pin::new(&mut self.incoming).poll_frame(cx);
        }
        let frame = ready!(frame);
        // A reader that counts does not ask again behind the last byte of a body whose length it knows.
        let is_last = matches!(&frame, Some(Ok(_))) && self.incoming.is_end_stream();
        if (frame.is_none() || is_last)
            && let Some((upstream, place)) = self.held.take()
        {
            give_back(upstream, place, cx);
        }
        if let Some(Err(_)) = &frame
            && let Some((upstream, place)) = self.held.take()
        {
            drop(upstream);
            place.fails(Failure::Reset);
            if self.begun {
                place.broke_off();
            }
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Broken)))
    }

    /// Whether there is nothing more to read.
    pub fn is_over(&self) -> bool {
        self.held.is_none()
    }

    /// Whether trailers may come behind it though its length is known.
    pub fn has_trailers(&self) -> bool {
        !self.incoming.is_end_stream() && self.held.as_ref().is_some_and(|(upstream, _)| upstream.is_shared())
    }

    /// Its length in bytes, where the head says it.
    pub fn length(&self) -> Option<u64> {
        self.incoming.size_hint().exact()
    }
}

/// An answer is here to its end: its connection is kept for others if it is good, and its place given back.
pub fn give_back(mut upstream: Box<Upstream>, place: Place, cx: &mut Context<'_>) {
    place.completed();
    if upstream.is_reusable(cx) {
        upstream.used = true;
        place.put_back(upstream);
    } else {
        // Before its place is given back.
        drop(upstream);
    }
}

/// A body read for as long as the gateway may hold it back.
pub enum Held {
    /// It came to its end.
    Whole(Bytes),
    /// It did not within the time; what came so far, and the rest.
    Part(Bytes, UpstreamBody),
    /// It broke off.
    Broken,
}

/// Reads a small body for at most `patience`; `None`: no longer than it takes to ask once.
pub async fn hold(mut body: UpstreamBody, patience: Option<Duration>) -> Held {
    let mut gathered = Gathered::default();
    let mut reading = std::pin::pin!(std::future::poll_fn(|cx| {
        loop {
            match ready!(body.poll_frame(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(Ok(frame)) => gathered.add(frame),
                Some(Err(error)) => return Poll::Ready(Err(error)),
            }
        }
    }));
    // Most small bodies came in with their head, and cost no timer.
    let mut read = std::future::poll_fn(|cx| match reading.as_mut().poll(cx) {
        Poll::Ready(read) => Poll::Ready(Some(read)),
        Poll::Pending => Poll::Ready(None),
    })
    .await;
    if let (None, Some(patience)) = (&read, patience) {
        read = tokio::time::timeout(patience, reading).await.ok();
    }
    match read {
        Some(Ok(())) => Held::Whole(gathered.bytes()),
        Some(Err(_)) => Held::Broken,
        None => Held::Part(gathered.bytes(), body),
    }
}

/// Frames put together; one frame is not copied.
#[derive(Default)]
struct Gathered {
    first: Bytes,
    more: BytesMut,
}

impl Gathered {
    fn add(&mut self, frame: Frame<Bytes>) {
        // A body whose length is known has no trailers, and only such bodies are gathered.
        let Ok(data) = frame.into_data() else { return };
        if self.first.is_empty() {
            self.first = data;
            return;
        }
        if self.more.is_empty() {
            self.more.extend_from_slice(&self.first);
        }
        self.more.extend_from_slice(&data);
    }

    fn bytes(&mut self) -> Bytes {
        if self.more.is_empty() { std::mem::take(&mut self.first) } else { self.more.split().freeze() }
    }
}

/// Reads a small request body whole.
///
/// # Errors
/// The client broke off, or sends too slowly.
pub async fn read_whole(mut incoming: Inflow) -> Result<Bytes, BodyError> {
    let mut gathered = Gathered::default();
    let mut pace = Pace::default();
    let mut next = |cx: &mut Context<'_>| match Pin::new(&mut incoming).poll_frame(cx) {
        Poll::Ready(frame) => {
            if let Some(data) = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()) {
                pace.came(data.len() as u64);
            }
            Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Broken)))
        }
        Poll::Pending => pace.poll_too_slow(cx).map(|()| Some(Err(BodyError::TooSlow))),
    };
    while let Some(frame) = std::future::poll_fn(&mut next).await {
        gathered.add(frame?);
    }
    Ok(gathered.bytes())
}

/// Where an answer's body comes from.
pub enum Source {
    /// Nothing (more) to come.
    Ended,
    /// All of it is here.
    Whole(Bytes),
    /// What is here, then what still comes.
    Streamed(Bytes, Box<UpstreamBody>),
}

impl From<Bytes> for Source {
    fn from(bytes: Bytes) -> Self {
        if bytes.is_empty() { Self::Ended } else { Self::Whole(bytes) }
    }
}

/// An answer's body towards a client. Dropping it, at its end or when the client is gone, ends the request.
pub struct AnswerBody {
    source: Source,
    over: Option<(Exchange, Record)>,
}

impl AnswerBody {
    /// A body.
    pub fn new(source: Source) -> Self {
        Self { source, over: None }
    }

    /// The exchange is over when the body is, and so is what is noted of it.
    pub fn ends_with(&mut self, exchange: Exchange, record: Record) {
        if self.is_end_stream() {
            record.completed();
        }
        self.over = Some((exchange, record));
    }

    /// All of it, of which it is noted that it went out; `None`: not all of it is here.
    pub fn take_whole(&mut self) -> Option<Bytes> {
        let bytes = match &mut self.source {
            Source::Ended => Bytes::new(),
            Source::Whole(bytes) => std::mem::take(bytes),
            Source::Streamed(..) => return None,
        };
        self.source = Source::Ended;
        if let Some((_, record)) = &self.over {
            record.sent(bytes.len() as u64);
            record.completed();
        }
        Some(bytes)
    }

    fn take_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.source {
            Source::Ended => Poll::Ready(None),
            Source::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                self.source = Source::Ended;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Source::Streamed(bytes, _) if !bytes.is_empty() => {
                Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes)))))
            }
            Source::Streamed(_, body) => {
                let frame = ready!(body.poll_frame(cx));
                if body.is_over() {
                    self.source = Source::Ended;
                }
                Poll::Ready(frame)
            }
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let frame = ready!(this.take_frame(cx));
        if let Some((_, record)) = &this.over {
            if let Some(Ok(frame)) = &frame {
                record.sent(frame.data_ref().map_or(0, |data| data.len() as u64));
            }
            if matches!(this.source, Source::Ended) && !matches!(frame, Some(Err(_))) {
                record.completed();
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Ended => true,
            Source::Whole(bytes) => bytes.is_empty(),
            Source::Streamed(..) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Ended => SizeHint::with_exact(0),
            Source::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Streamed(bytes, body) => {
                let rest = body.incoming.size_hint();
                rest.exact().map_or_else(SizeHint::default, |rest| SizeHint::with_exact(rest + bytes.len() as u64))
            }
        }
    }
}

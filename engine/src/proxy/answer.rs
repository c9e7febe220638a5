//! An answer's body, from an instance towards a client. The request is in flight until its end.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::body::{BodyError, Gathered};
use super::client::Exchange;
use super::inflow::Inflow;
use super::place::Place;
use super::pools;
use super::upstream::Upstream;
use crate::dispatch::Failure;
use crate::observe::record::Record;

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
        pools::put(&place.target, upstream);
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
        exchange.begins();
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
            match &frame {
                Some(Ok(frame)) => record.sent(frame.data_ref().map_or(0, |data| data.len() as u64)),
                Some(Err(_)) => record.broke_off(),
                None => {}
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

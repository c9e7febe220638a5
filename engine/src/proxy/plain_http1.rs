//! A client connection for as long as all that is said on it is [plain](super::plain_request): requests are read, answered
//! and written here, at a fraction of what hyper needs for it. The first that is anything else, request or answer,
//! goes to [`http1`](super::http1) with the bytes of its request, and the connection with it until it has been idle
//! for a while.

use std::future::poll_fn;
use std::io::{Cursor, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::Response;
use http::header::{self, HeaderValue};
use tokio::io::AsyncWrite;

use super::answer::AnswerBody;
use super::client::{ClientState, Clock, Guard, IDLE_BUFFERED, linger};
use super::connections::Seat;
use super::forward;
use super::plain_request;
use super::wire::WireIo;

/// What becomes of the connection.
pub enum Next {
    /// It is over.
    Over,
    /// It has been idle for a while and may go on.
    Rests,
    /// hyper is to go on with the bytes that were read, beginning with a request; it may be answered already.
    Hyper(Option<Box<Response<AnswerBody>>>),
}

/// Serves a client on whose connection HTTP/1 is spoken.
pub async fn serve(client: &Rc<ClientState>, seat: &Seat) -> Next {
    let timer = std::pin::pin!(tokio::time::sleep(IDLE_BUFFERED));
    let guard = Guard::new(client, timer, seat);
    let mut line = Line { client, guard, io: WireIo(Rc::clone(&client.wire)), behind: Bytes::new() };
    let mut bytes = Bytes::new();
    loop {
        if bytes.is_empty() {
            bytes = match line.next_words().await {
                Ok(words) => words,
                Err(next) => return next,
            };
        }
        let Some((request, end)) = plain_request::read(&bytes) else { return line.leave_to_hyper(&bytes, None) };
        // In place: it is moved no more than it has to be, for it is large.
        let answer = std::pin::pin!(forward::answer(Rc::clone(client), request));
        let Some(mut response) = line.wait_for(answer, bytes.len() > end).await else { return Next::Over };
        let Some((head, body)) = plain_request::write(&mut response) else {
            return line.leave_to_hyper(&bytes, Some(response));
        };
        // What is noted of the request ends here, as it does with hyper, which takes a body in before it goes out.
        drop(response);
        if !line.send(head, body).await {
            return Next::Over;
        }
        bytes.advance(end);
        if bytes.is_empty() {
            bytes = std::mem::take(&mut line.behind);
        }
    }
}

/// A connection between two heads or in the middle of an answer.
struct Line<'a> {
    client: &'a Rc<ClientState>,
    guard: Guard<'a>,
    io: WireIo,
    /// What the client has said while it is being answered.
    behind: Bytes,
}

impl Line<'_> {
    /// Waits for the client to say something.
    async fn next_words(&mut self) -> Result<Bytes, Next> {
        let words = poll_fn(|cx| {
            if self.guard.wants_end(cx) {
                return Poll::Ready(Ok(Bytes::new()));
            }
            if let Poll::Ready(words) = self.poll_read(cx) {
                return Poll::Ready(Ok(words));
            }
            match self.guard.look(cx) {
                Clock::GoesOn => Poll::Pending,
                Clock::AtRest => Poll::Ready(Err(Next::Rests)),
                Clock::TimeUp => Poll::Ready(Err(Next::Over)),
            }
        })
        .await?;
        if words.is_empty() {
            linger(WireIo(Rc::clone(&self.client.wire))).await;
            return Err(Next::Over);
        }
        Ok(words)
    }

    /// Waits for a request's answer; `None`: the client is gone. `has_more`: it has said more than this request already.
    async fn wait_for(
        &mut self,
        mut answer: Pin<&mut impl Future<Output = Response<AnswerBody>>>,
        has_more: bool,
    ) -> Option<Response<AnswerBody>> {
        let mut is_last = false;
        let mut response = poll_fn(|cx| {
            is_last |= self.guard.wants_end(cx);
            if let Poll::Ready(response) = answer.as_mut().poll(cx) {
                return Poll::Ready(Some(response));
            }
            if !has_more && self.behind.is_empty() {
                // One piece is kept; until it is looked at, the rest waits in the kernel.
                if let Poll::Ready(words) = self.poll_read(cx) {
                    if words.is_empty() {
                        return Poll::Ready(None);
                    }
                    self.behind = words;
                }
            }
            // An interim answer that the client does not take.
            if self.guard.look(cx) == Clock::TimeUp { Poll::Ready(None) } else { Poll::Pending }
        })
        .await?;
        if is_last {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Some(response)
    }

    /// Sends an answer; false: the client does not take it.
    async fn send(&mut self, head: Vec<u8>, body: Bytes) -> bool {
        let mut left = Cursor::new(head).chain(body);
        poll_fn(|cx| {
            let sent = self.poll_send(cx, &mut left);
            if sent.is_pending() && self.guard.look(cx) == Clock::TimeUp { Poll::Ready(false) } else { sent }
        })
        .await
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, left: &mut impl Buf) -> Poll<bool> {
        let mut io = Pin::new(&mut self.io);
        while left.has_remaining() {
            let mut pieces = [IoSlice::new(&[]); 2];
            let tried = match left.chunks_vectored(&mut pieces) {
                1 => io.as_mut().poll_write(cx, left.chunk()),
                count => io.as_mut().poll_write_vectored(cx, &pieces[..count]),
            };
            match ready!(tried) {
                Ok(count) if count > 0 => left.advance(count),
                _ => return Poll::Ready(false),
            }
        }
        io.poll_flush(cx).map(|flushed| flushed.is_ok())
    }

    /// What has come in; nothing: the client has nothing more to say.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Bytes> {
        self.io.poll_piece(cx).map(Result::unwrap_or_default)
    }

    fn leave_to_hyper(&self, bytes: &Bytes, answered: Option<Response<AnswerBody>>) -> Next {
        self.client.wire.unread([&bytes[..], &self.behind[..]].concat().into());
        Next::Hyper(answered.map(Box::new))
    }
}

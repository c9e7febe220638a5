//! A client connection while HTTP/1 is spoken on it: by hyper, with the limits on time that hyper does not know,
//! until the connection ends, leaves HTTP, or has been idle for so long that hyper's buffers are given back. hyper comes
//! in with the first request that [`plain_http1`](super::plain_http1) has not answered to its end.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1::{Builder, Parts};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use super::answer::AnswerBody;
use super::client::{ClientState, Clock, Guard, IDLE_BUFFERED, linger};
use super::connections::Seat;
use super::forward;
use super::head::{Framing, HEAD_MAX};
use super::inflow::Inflow;
use super::wire::WireIo;

/// Said before a connection is closed whose time is up; only a client in the middle of a request hears it.
const TIMED_OUT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// Why HTTP/1 is not spoken any more.
enum End {
    /// hyper is through, well or not.
    Over(bool),
    /// The client has had its time.
    TimeUp,
}

/// Serves a client; true when it has only been idle for a while and may go on. `answered`: the answer to the request that
/// the bytes to be read begin with, whose head was a good one.
pub async fn serve(client: &Rc<ClientState>, seat: &Seat, answered: Option<Box<Response<AnswerBody>>>) -> bool {
    client.wire.tap_heads();
    let answered = Cell::new(answered);
    let service = service_fn(|request: Request<Incoming>| {
        let client = Rc::clone(client);
        let answered = answered.take();
        Box::pin(async move {
            let Some(answered) = answered else {
                return Ok::<_, Infallible>(forward::answer(client, request.map(Inflow::Hyper)).await);
            };
            // Its head is out of the way of the next.
            client.head_fault(Framing::Length(0));
            Ok(*answered)
        })
    });
    let mut connection = Builder::new()
        .header_read_timeout(None)
        .max_buf_size(HEAD_MAX)
        .max_header_size(HEAD_MAX)
        .serve_connection(TokioIo::new(WireIo(Rc::clone(&client.wire))), service);

    let timer = std::pin::pin!(tokio::time::sleep(IDLE_BUFFERED));
    let mut guard = Guard::new(client, timer, seat);
    let mut rests = false;
    let end = poll_fn(|cx| {
        let mut ended = connection.poll_without_shutdown(cx);
        // hyper hears of it behind its first look at what has come in: told before, it would end without one.
        if ended.is_pending() && guard.wants_end(cx) {
            Pin::new(&mut connection).graceful_shutdown();
            ended = connection.poll_without_shutdown(cx);
        }
        if let Poll::Ready(ended) = ended {
            return Poll::Ready(End::Over(ended.is_ok()));
        }
        match guard.look(cx) {
            Clock::GoesOn => return Poll::Pending,
            Clock::TimeUp => return Poll::Ready(End::TimeUp),
            Clock::AtRest => {}
        }
        // Between two requests hyper ends at once, without a word to the client.
        rests = true;
        Pin::new(&mut connection).graceful_shutdown();
        connection.poll_without_shutdown(cx).map(|ended| End::Over(ended.is_ok()))
    })
    .await;
    match end {
        // A client that ends before its answer begins may still wait for those before it.
        End::Over(false) if client.is_amid_answer() => client.wire.abort(),
        End::Over(is_good) => {
            let Parts { io, read_buf, .. } = connection.into_parts();
            let tunnel = client.take_tunnel();
            match tunnel {
                Some(tunnel) => tunnel.run(io.into_inner(), read_buf).await,
                None if rests && is_good => {
                    client.rest(&read_buf);
                    return true;
                }
                None => linger(io.into_inner()).await,
            }
        }
        End::TimeUp if client.head_deadline().is_some() => client.wire.send_interim(TIMED_OUT),
        End::TimeUp => {}
    }
    false
}

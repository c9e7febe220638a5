//! A client connection on which HTTP/2 is spoken: by hyper and h2, with the limits on time and floods that these
//! do not know. Each stream is a request of its own and takes a place of its own.

use std::convert::Infallible;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use super::client::{ClientState, Clock, Guard, IDLE_TIMEOUT, linger};
use super::connections::Seat;
use super::executor::OnThisWorker;
use super::forward;
use super::inflow::Inflow;
use super::wire::WireIo;

/// Requests at a time on one connection.
const STREAMS_MAX: u32 = 100;
/// Bytes of a request's body that may be on their way, for each stream and for all together.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes of an answer that wait for the client to take them.
const SEND_BUFFER: usize = 64 * 1024;
/// Bytes of a head, as HTTP/2 counts them.
const HEAD_MAX: u32 = 16 * 1024;
/// Streams that a client opens and gives up before they were looked at, and streams that it makes the gateway reset.
const EARLY_RESETS_MAX: usize = 20;
const PROVOKED_RESETS_MAX: usize = 100;
/// How long the end of a connection waits for the client to hear of it.
const FAREWELL: Duration = Duration::from_millis(100);
/// GOAWAY with ENHANCE_YOUR_CALM.
const CALM: &[u8] = &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0xb];

enum End {
    Over,
    TimeUp,
    Flood,
}

/// Serves a client until it or the gateway has had enough.
pub async fn serve(client: &Rc<ClientState>, seat: &Seat) {
    client.wire.tap_frames();
    let of_client = Rc::clone(client);
    let service = service_fn(move |request: Request<Incoming>| {
        let client = Rc::clone(&of_client);
        async move { Ok::<_, Infallible>(forward::answer(client, request.map(Inflow::Hyper)).await) }
    });
    let mut connection = std::pin::pin!(
        Builder::new(OnThisWorker)
            .max_concurrent_streams(STREAMS_MAX)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .max_header_list_size(HEAD_MAX)
            .max_pending_accept_reset_streams(EARLY_RESETS_MAX)
            .max_local_error_reset_streams(PROVOKED_RESETS_MAX)
            .serve_connection(TokioIo::new(WireIo(Rc::clone(&client.wire))), service)
    );
    let timer = std::pin::pin!(tokio::time::sleep(IDLE_TIMEOUT));
    let mut guard = Guard::new(client, timer, seat);
    let mut told = false;
    let end = poll_fn(|cx| {
        if guard.wants_end(cx) || (!told && client.listening.ends_connections()) {
            told = true;
            connection.as_mut().graceful_shutdown();
        }
        if connection.as_mut().poll(cx).is_ready() {
            return Poll::Ready(End::Over);
        }
        if client.wire.flood().is_some() {
            return Poll::Ready(End::Flood);
        }
        if guard.look(cx) == Clock::TimeUp { Poll::Ready(End::TimeUp) } else { Poll::Pending }
    })
    .await;
    match end {
        End::Over => {}
        End::Flood => client.wire.send_interim(CALM),
        End::TimeUp => {
            connection.as_mut().graceful_shutdown();
            // The farewell goes out if the client takes it.
            let farewell = poll_fn(|cx| connection.as_mut().poll(cx).map(|_| ()));
            let _ = tokio::time::timeout(FAREWELL, farewell).await;
        }
    }
    linger(WireIo(Rc::clone(&client.wire))).await;
}

//! One client connection from its acceptance to its end: which version of HTTP the client speaks, and who speaks it
//! with it: [`http1`](super::http1), [`plain_http1`](super::plain_http1), [`http2`](super::http2) or [`tcp`](super::tcp).

use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio::time::Instant;

use super::client::{ClientState, HEAD_TIMEOUT};
use super::connections::Seat;
use super::frames::PREFACE;
use super::listen::{Face, Listening};
use super::plain_http1::Next;
use super::stream::Stream;
use super::wire::{Wire, WireIo};
use super::{http1, http2, plain_http1, tcp};
use crate::sync::lock;
use crate::table::Mode;

/// What is read at once of a connection on which nothing has been said yet: most heads fit.
const FIRST_READ: usize = 2048;

/// Serves a client until it or the gateway has had enough, in a task of its own. Never fails: a broken connection just
/// ends.
pub fn serve(seat: Seat, listening: Arc<Listening>, stream: TcpStream, peer: SocketAddr) {
    let Face { mode, certificates } = lock(&listening.face).clone();
    match (certificates, mode) {
        (None, Mode::Http) => {
            let wire = Wire::of_client(Stream::Clear(stream));
            spawn_local(talk(seat, ClientState::new(wire, listening, peer, None)));
        }
        (None, Mode::Tcp) => {
            let wire = Wire::of_client(Stream::Clear(stream));
            spawn_local(tcp::serve(seat, listening, wire));
        }
        (Some(certificates), mode) => {
            spawn_local(async move {
                let Ok(stream) = certificates.accept(stream).await else { return };
                let wire = Wire::of_client(Stream::Tls(Box::new(stream)));
                match mode {
                    Mode::Http => talk(seat, ClientState::new(wire, listening, peer, Some(certificates))).await,
                    Mode::Tcp => tcp::serve(seat, listening, wire).await,
                }
            });
        }
    }
}

/// Speaks with a client. What a stage needs is boxed, so that a connection that waits for a request is small.
async fn talk(seat: Seat, client: Rc<ClientState>) {
    while let Some(is_http2) = speaks_http2(&client, &seat).await {
        if is_http2 {
            return Box::pin(http2::serve(&client, &seat)).await;
        }
        let answered = match Box::pin(plain_http1::serve(&client, &seat)).await {
            Next::Over => return,
            Next::Rests => {
                client.rest(&[]);
                continue;
            }
            Next::Hyper(answered) => answered,
        };
        if !Box::pin(http1::serve(&client, &seat, answered)).await {
            return;
        }
    }
}

/// Waits for the client's first words; `None`: it has none to say.
async fn speaks_http2(client: &ClientState, seat: &Seat) -> Option<bool> {
    let mut timer = std::pin::pin!(tokio::time::sleep_until(client.idle_deadline()));
    let mut got: Vec<u8> = Vec::new();
    poll_fn(move |cx| {
        let mut io = WireIo(Rc::clone(&client.wire));
        let is_http2 = loop {
            if seat.is_going(cx) || timer.as_mut().poll(cx).is_ready() {
                break None;
            }
            let mut space = [MaybeUninit::uninit(); FIRST_READ];
            let mut buffer = ReadBuf::uninit(&mut space);
            match Pin::new(&mut io).poll_read(cx, &mut buffer) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => break None,
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => break (!got.is_empty()).then_some(false),
                Poll::Ready(Ok(())) => {
                    if got.is_empty() {
                        timer.as_mut().reset(Instant::now() + HEAD_TIMEOUT);
                    }
                    got.extend_from_slice(buffer.filled());
                    let is_http2 = got.starts_with(PREFACE);
                    if is_http2 || !PREFACE.starts_with(&got) {
                        break Some(is_http2);
                    }
                }
            }
        };
        client.wire.unread(std::mem::take(&mut got).into());
        Poll::Ready(is_http2)
    })
    .await
}

//! Bytes both ways after an answer of 101 (Switching Protocols), for WebSocket and its kin. The request stays
//! in flight at its instance until either side ends it.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncWriteExt, copy_bidirectional};
use tokio::time::Instant;

use super::place::Place;
use super::wire::WireIo;

/// A tunnel through which nothing comes.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

/// The instance's side of a tunnel that is about to begin.
pub struct Tunnel {
    io: WireIo,
    /// Bytes that came behind the 101.
    early: Bytes,
    _place: Place,
}

impl Tunnel {
    /// A tunnel to where `io` leads.
    pub fn new(io: WireIo, early: Bytes, place: Place) -> Self {
        Self { io, early, _place: place }
    }

    /// Carries bytes until both sides have ended or one has broken off. `early` came from the client behind its
    /// request.
    pub async fn run(mut self, mut client: WireIo, early: Bytes) {
        let greeted = async {
            client.write_all(&self.early).await?;
            self.io.write_all(&early).await?;
            client.flush().await
        };
        if greeted.await.is_ok() {
            carry(client, self.io).await;
        }
    }
}

/// Carries bytes both ways, each side's end to the other by itself, until both have ended, one has broken off, or
/// nothing has come from either for an hour. However it ends, both connections are closed then; there is nobody
/// left to tell.
pub async fn carry(mut client: WireIo, mut instance: WireIo) {
    let wires = [Rc::clone(&client.0), Rc::clone(&instance.0)];
    let mut copying = std::pin::pin!(copy_bidirectional(&mut client, &mut instance));
    loop {
        let quiet_since = wires.iter().map(|wire| wire.last_read()).max();
        let Some(ends) = quiet_since.map(|since| since + IDLE_TIMEOUT).filter(|ends| *ends > Instant::now()) else {
            return;
        };
        if tokio::time::timeout_at(ends, copying.as_mut()).await.is_ok() {
            return;
        }
    }
}

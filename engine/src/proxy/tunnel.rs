//! Bytes both ways after an answer of 101 (Switching Protocols), for WebSocket and its kin. The request stays
//! in flight at its instance until either side ends it.

use bytes::Bytes;
use tokio::io::{AsyncWriteExt, copy_bidirectional};

use super::target::Place;
use super::wire::WireIo;

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
        let carried = async {
            client.write_all(&self.early).await?;
            self.io.write_all(&early).await?;
            copy_bidirectional(&mut client, &mut self.io).await
        };
        // However it ends, both connections are closed here; there is nobody left to tell.
        let _ = carried.await;
    }
}

//! What bodies have in common, whichever way they go: how they break off, what is small, and how a small one is put
//! together. Neither way is more kept than the chunk in hand, save for what is small enough to be sent again.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame};

use super::inflow::Inflow;
use super::pace::Pace;

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

/// Frames put together; one frame is not copied.
#[derive(Default)]
pub struct Gathered {
    first: Bytes,
    more: BytesMut,
}

impl Gathered {
    /// One more.
    pub fn add(&mut self, frame: Frame<Bytes>) {
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

    /// All of them.
    pub fn bytes(&mut self) -> Bytes {
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

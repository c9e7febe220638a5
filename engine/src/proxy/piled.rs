//! Tiny DATA frames of an HTTP/2 client that have come in and that nobody has taken yet. h2 ends a connection on which
//! some 2000 of them lie unread, as it should for a flood; but a client of many small messages gets there while it
//! keeps to every window it was given: the gateway need only be held up for a moment, or the instance be slower than
//! the client. So the socket is not read on before some were taken. A client that sends what nobody takes is left to
//! h2 after [`PATIENCE`].

use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Sleep;

/// Bytes of payload below which h2 counts a frame as tiny.
const TINY: usize = 256;
/// So many may lie unread. h2 bears about 2050 of one byte, and up to 820 come with the next 8 KiB that it reads.
const UNREAD_MAX: u32 = 1000;
/// How long nothing is read although nothing is taken: what waits behind, as word of the windows of answers, may be
/// what the one who is to take it waits for.
const PATIENCE: Duration = Duration::from_secs(1);

/// Counts them on one connection.
#[derive(Default)]
pub struct Piled {
    unread: u32,
    /// Bodies that are being read.
    bodies: u32,
    reader: Option<Waker>,
    patience: Option<Pin<Box<Sleep>>>,
}

/// Whether a DATA frame with so many bytes counts.
pub fn is_tiny(length: usize) -> bool {
    (1..TINY).contains(&length)
}

impl Piled {
    /// One has come in.
    pub fn came(&mut self) {
        self.unread += 1;
    }

    /// One was taken.
    pub fn taken(&mut self) {
        self.unread = self.unread.saturating_sub(1);
        self.wake();
    }

    /// Somebody begins to read a body.
    pub fn began(&mut self) {
        self.bodies += 1;
    }

    /// A body is not read any more. With the last one goes the count: what is left of given up bodies is h2's.
    pub fn ended(&mut self) {
        self.bodies -= 1;
        if self.bodies == 0 {
            self.unread = 0;
        }
        self.wake();
    }

    /// Ready when the socket may be read.
    pub fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.unread < UNREAD_MAX {
            self.patience = None;
            return Poll::Ready(());
        }
        if self.bodies == 0 {
            // The request that they belong to may not have been looked at yet: that is done before the next read.
            self.unread = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.reader = Some(cx.waker().clone());
        let patience = self.patience.get_or_insert_with(|| Box::pin(tokio::time::sleep(PATIENCE)));
        if patience.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        (self.unread, self.patience) = (0, None);
        Poll::Ready(())
    }

    fn wake(&mut self) {
        if self.unread < UNREAD_MAX
            && let Some(reader) = self.reader.take()
        {
            reader.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::Instant;

    use super::*;

    fn full() -> Piled {
        let mut piled = Piled::default();
        piled.began();
        (0..UNREAD_MAX).for_each(|_| piled.came());
        piled
    }

    fn may_read(piled: &mut Piled) -> bool {
        piled.poll_room(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[tokio::test]
    async fn nothing_is_read_until_some_are_taken() {
        let mut piled = full();

        let before = may_read(&mut piled);
        piled.taken();

        assert_eq!((before, may_read(&mut piled)), (false, true));
    }

    #[tokio::test]
    async fn what_came_before_its_request_was_looked_at_waits_for_that_alone() {
        let mut piled = full();
        piled.bodies = 0;

        assert_eq!((may_read(&mut piled), may_read(&mut piled)), (false, true));
    }

    #[tokio::test]
    async fn a_body_given_up_holds_nothing_up() {
        let mut piled = full();

        piled.ended();

        assert!(may_read(&mut piled));
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_takes_is_left_to_h2_in_the_end() {
        let mut piled = full();
        let start = Instant::now();

        poll_fn(|cx| piled.poll_room(cx)).await;

        assert!(start.elapsed() >= PATIENCE);
    }
}

//! The least pace at which a client must send a body: 256 bytes for each second that the gateway waits for it,
//! after 10 s of grace. Time in which nobody wants to read does not count, so that a slow instance is not the
//! client's fault.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// Waiting that is free.
const GRACE: Duration = Duration::from_secs(10);
/// Bytes that a second of waiting beyond it must bring.
const RATE: u64 = 256;

/// How long a body has been waited for.
#[derive(Default)]
pub struct Pace {
    waited: Duration,
    received: u64,
    since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    /// So many bytes have come.
    pub fn came(&mut self, bytes: u64) {
        self.received += bytes;
        if let Some(since) = self.since.take() {
            self.waited += since.elapsed();
        }
    }

    /// Nothing is here and it is wanted; ready once that has been so for too long.
    pub fn poll_too_slow(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let since = *self.since.get_or_insert_with(Instant::now);
        let ends = since + self.patience();
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(ends)));
        if timer.deadline() != ends {
            timer.as_mut().reset(ends);
        }
        timer.as_mut().poll(cx)
    }

    fn patience(&self) -> Duration {
        let earned = Duration::from_secs(self.received / RATE);
        (GRACE + earned).saturating_sub(self.waited)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn wait_for(pace: &mut Pace, time: Duration) -> bool {
        let slow = std::future::poll_fn(|cx| pace.poll_too_slow(cx));
        tokio::time::timeout(time, slow).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_keeps_the_pace_is_waited_for() {
        let mut pace = Pace::default();

        for _ in 0..60 {
            assert!(!wait_for(&mut pace, Duration::from_secs(1)).await);
            pace.came(RATE);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn drops_at_long_intervals_do_not_keep_it() {
        let mut pace = Pace::default();
        let began = Instant::now();

        while !wait_for(&mut pace, Duration::from_secs(1)).await {
            pace.came(1);
        }

        assert!((9..=11).contains(&began.elapsed().as_secs()));
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_nobody_reads_is_free() {
        let mut pace = Pace::default();
        assert!(!wait_for(&mut pace, Duration::from_secs(1)).await);
        pace.came(1);

        tokio::time::sleep(Duration::from_secs(60)).await;

        assert!(!wait_for(&mut pace, Duration::from_secs(1)).await);
    }
}

//! A request that waits, in the queue or for its own target.

use super::Time;
use super::ask::TargetKey;

/// A request that is given up is told so when one part in so many of its time is left.
const WORD_SHARE: u32 = 50;

/// What decides when it is served, where, and until when.
#[derive(Debug)]
pub(super) struct Waiting {
    pub avoid: Vec<TargetKey>,
    pub hash: Option<u64>,
    pub since: Time,
    pub deadline: Time,
    pub bytes: u64,
}

impl Waiting {
    /// From when on it is not worth beginning where half of the requests take `p50`: it would hardly end in its time.
    /// While others are served it is early enough, too, for the client to hear of it before it goes; while none is, the
    /// service may come back at any moment.
    pub fn last_call(&self, p50: Time, heard_at: Time) -> Time {
        let time = self.deadline.saturating_sub(self.since);
        let word = if heard_at > self.since { time / WORD_SHARE } else { Time::ZERO };
        self.deadline.saturating_sub((p50 / 2).max(word))
    }
}

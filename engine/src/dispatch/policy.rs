//! What one service is to be held to.

use super::Time;

/// What one service allows and asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Requests at a time per target; `None`: as many as come.
    pub concurrency: Option<u32>,
    /// Requests that may wait at once; `None`: 50 for each place, 128 to 10 000.
    pub queue_max: Option<usize>,
    /// Bytes of requests that may wait at once.
    pub queue_bytes_max: u64,
    /// Whether targets that fail are put aside.
    pub eject: bool,
    /// How long a new target's limit rises.
    pub slow_start: Time,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            concurrency: None,
            queue_max: None,
            queue_bytes_max: 64 * 1024 * 1024,
            eject: true,
            slow_start: Time::from_secs(10),
        }
    }
}

//! What one service is to be held to.

use super::Time;

/// Requests at a time per target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Concurrency {
    /// As many as come.
    #[default]
    Unlimited,
    /// So many.
    Limit(u32),
    /// As many as are learned to do well, see [`super::limit`].
    Auto,
}

impl From<Option<u32>> for Concurrency {
    fn from(limit: Option<u32>) -> Self {
        limit.map_or(Self::Unlimited, Self::Limit)
    }
}

/// Which of the targets with a free place gets a request; see [`super::choose`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// Where the answer is expected first.
    #[default]
    Fastest,
    /// Fewest in flight.
    LeastRequests,
    /// Each in turn.
    RoundRobin,
    /// Each in turn, as often as its weight says.
    Weighted,
    /// Any.
    Random,
    /// The better of two by latency and requests in flight.
    P2cEwma,
    /// By the request's hash, on a ring.
    RingHash,
    /// By the request's hash, by table.
    Maglev,
    /// Hot and cold by the load that instances report.
    Prequal,
}

/// What one service allows and asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Policy {
    /// Requests at a time per target.
    pub concurrency: Concurrency,
    /// Which target a request goes to.
    pub balance: Balance,
    /// With a hash: no target gets more than this multiple of the mean; `None`: not bounded.
    pub hash_load: Option<f64>,
    /// Whether a request may wait for a much faster target though a slow one is free.
    pub hold: bool,
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
            concurrency: Concurrency::default(),
            balance: Balance::default(),
            hash_load: Some(1.25),
            hold: false,
            queue_max: None,
            queue_bytes_max: 64 * 1024 * 1024,
            eject: true,
            slow_start: Time::from_secs(10),
        }
    }
}

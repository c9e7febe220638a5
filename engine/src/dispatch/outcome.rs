//! How a request ended at a target, as far as dispatch wants to know.

use super::Time;

/// Told when a place is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered, `took` after its place was given.
    Ok {
        /// From the place to the end of the answer.
        took: Time,
        /// Requests in flight there when it was sent, itself included.
        among: u32,
    },
    /// It failed there.
    Failed(Failure),
    /// The target says itself that it has too much to do.
    Busy {
        /// How long it asks to be left alone.
        retry_after: Time,
    },
    /// Nobody waits for it any more: it would have taken longer than this.
    Abandoned {
        /// From the place to its end.
        after: Time,
    },
}

/// In which way a request failed at a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection could be made.
    Connect,
    /// The connection broke, or what came was not HTTP.
    Reset,
    /// No answer began within the service's own limit.
    Timeout,
    /// It answered that it failed.
    Status,
}

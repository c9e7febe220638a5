//! What a choice goes by and what is kept between two of them; the choice itself is `choose`'s.

use super::Time;
use super::ask::TargetKey;
use super::hashing::{Ring, Table};

/// What the choice goes by, beside the targets themselves.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wish<'a> {
    /// Targets to go to last.
    pub avoid: &'a [TargetKey],
    /// What requests that belong together have in common.
    pub hash: Option<u64>,
    /// How long the request has waited.
    pub waited: Time,
}

/// A target that may be chosen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    /// Of the service's targets.
    pub index: usize,
    /// Seconds to the answer.
    pub expected: Option<f64>,
    /// Requests that it has.
    pub in_flight: u32,
    /// Whether it has no requests, and nothing was heard of it for long.
    pub is_unheard: bool,
}

/// What is kept between two choices.
#[derive(Debug, Default)]
pub(super) struct Choosing {
    /// Kept for its memory alone: it is filled anew for each request.
    pub candidates: Vec<Candidate>,
    /// Made of the targets when first needed after a change of them.
    pub ring: Option<Ring>,
    pub table: Option<Table>,
}

impl Choosing {
    /// Targets have come or gone.
    pub fn forget(&mut self) {
        (self.ring, self.table) = (None, None);
    }
}

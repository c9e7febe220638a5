//! A request's right to be at an instance, and what is noted of the request while it is there. It and the
//! [`backend`](super::backend) know each other, as what is given back and who gave it.

use std::cell::Cell;
use std::sync::Arc;

use http::{HeaderMap, StatusCode};
use tokio::time::Instant;

use super::back_pressure;
use super::backend::Backend;
use super::target::Target;
use crate::dispatch::{Failure, Outcome, TargetKey, Time};

/// A request's right to be at a target; given back when dropped, exactly once, with what became of the request.
pub struct Place {
    backend: Arc<Backend>,
    key: TargetKey,
    /// Where the request is to go.
    pub target: Arc<Target>,
    began: Time,
    /// Requests in flight there when it was granted, this one included.
    among: u32,
    /// `None` so far: a request that ends so was given up by this side.
    outcome: Cell<Option<Outcome>>,
    /// The answer's status, and how long after the place was given its head was here.
    head: Cell<Option<(StatusCode, Time)>>,
    /// When the answer was here to its end.
    ended: Cell<Option<Time>>,
    has_begun: Cell<bool>,
    /// A kept connection carries it.
    reused: Cell<bool>,
}

impl Place {
    /// The right that dispatch has just granted.
    pub(super) fn new(backend: Arc<Backend>, key: TargetKey, target: Arc<Target>, among: u32, began: Time) -> Self {
        target.in_flight.more();
        let (outcome, head, ended) = (Cell::new(None), Cell::new(None), Cell::new(None));
        let (has_begun, reused) = (Cell::new(false), Cell::new(false));
        Self { backend, key, target, began, among, outcome, head, ended, has_begun, reused }
    }

    /// When it was granted.
    pub fn granted_at(&self) -> Instant {
        self.backend.common.moment(self.began)
    }

    /// Names the target for [`Backend::seek`]'s `avoid`.
    pub fn key(&self) -> TargetKey {
        self.key
    }

    /// The head of the answer is here: does it say that the target failed, or that it has too much to do?
    pub fn judge(&self, status: StatusCode, headers: &HeaderMap) {
        let now = self.backend.common.now();
        self.head.set(Some((status, now.saturating_sub(self.began))));
        self.begun(now);
        if let Some(in_flight) = back_pressure::in_flight(headers) {
            self.backend.reported(self.key, in_flight);
        }
        let is_busy = [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE].contains(&status);
        let is_failure = status.is_server_error()
            && ![StatusCode::NOT_IMPLEMENTED, StatusCode::HTTP_VERSION_NOT_SUPPORTED].contains(&status);
        if let Some(retry_after) = is_busy.then(|| back_pressure::retry_after(headers)).flatten() {
            self.outcome.set(Some(Outcome::Busy { retry_after }));
        } else if is_failure {
            self.outcome.set(Some(Outcome::Failed(Failure::Status)));
        }
    }

    /// The target carries what comes from here on, for as long as that may last: it says nothing of how fast it is.
    pub fn is_carried(&self) {
        let now = self.backend.common.now();
        self.begun(now);
        self.succeeds(now.saturating_sub(self.began));
    }

    fn begun(&self, now: Time) {
        if !self.has_begun.replace(true) {
            self.backend.begun(self.key, now);
        }
    }

    /// The answer is here to its end, or as far as it says how fast the target is.
    pub fn completed(&self) {
        if self.ended.get().is_none() {
            self.ends(self.backend.common.now());
        }
    }

    /// The answer came in one piece with its head, and is here to its end.
    pub fn came_whole(&self) {
        if let Some((_, took)) = self.head.get() {
            self.ends(self.began.saturating_add(took));
        }
    }

    fn ends(&self, now: Time) {
        self.ended.set(Some(now));
        self.succeeds(now.saturating_sub(self.began));
    }

    fn succeeds(&self, took: Time) {
        if self.outcome.get().is_none() {
            self.outcome.set(Some(Outcome::Ok { took, among: self.among }));
        }
    }

    /// The target broke an answer off that the client has seen the beginning of.
    pub fn broke_off(&self) {
        self.backend.failures.more();
    }

    /// The try failed; after a reset, connections kept to the target are not to be trusted.
    pub fn fails(&self, failure: Failure) {
        self.target.failures.more();
        if failure != Failure::Timeout {
            self.distrust();
        }
        self.outcome.set(Some(Outcome::Failed(failure)));
    }

    /// Connections kept to the target are not to be trusted: one was closed as a request went out.
    pub fn distrust(&self) {
        self.target.distrust();
    }

    /// A kept connection carries the request.
    pub fn reuses(&self) {
        self.reused.set(true);
    }

    /// A connection to the target was made.
    pub fn connected(&self) {
        self.backend.connected(self.key);
    }

    /// No connection to the target could be made.
    pub fn unreachable(&self, why: &str) {
        self.fails(Failure::Connect);
        self.target.unreachable(why);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let now = self.ended.get().unwrap_or_else(|| self.backend.common.now());
        let outcome = self.outcome.get().unwrap_or(Outcome::Abandoned { after: now.saturating_sub(self.began) });
        match (self.head.get(), outcome) {
            (Some((status, took)), _) => self.target.figures.answered(status, took),
            (None, Outcome::Failed(_)) => self.target.figures.failed(),
            // Given up, or a kept connection that was just being closed: it says nothing of the revision.
            (None, _) => {}
        }
        self.backend.counted.tried(&outcome, self.reused.get());
        let left = self.target.in_flight.less();
        self.backend.finished(self.key, self.has_begun.get(), &outcome, now);
        if left == 0 {
            self.backend.common.accounts.told_idle();
        }
    }
}

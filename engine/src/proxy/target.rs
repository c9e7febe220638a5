//! One instance as the gateway knows it, and a request's right to be there.

use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use http::{HeaderMap, StatusCode};
use tokio::time::Instant;

use super::back_pressure;
use super::backend::Backend;
use super::pools;
use super::revisions::Figures;
use super::shared::{Count, lock};
use super::sticky;
use super::upstream::Upstream;
use crate::control::policy::Protocol;
use crate::control::table;
use crate::dispatch::{Failure, Outcome, TargetKey, Time};

static SERIAL: AtomicU64 = AtomicU64::new(0);

/// One instance, from the table that names it first to the end of its last request.
pub struct Target {
    /// Names it in this process: no other target ever has the same.
    pub serial: u64,
    /// The instance's name and generation, as in the table.
    pub id: String,
    /// Rises with each start of the instance.
    pub generation: u64,
    /// Where it listens.
    pub address: SocketAddr,
    /// What it is spoken to in.
    pub protocol: Protocol,
    /// Tries sent there.
    pub requests: Count,
    /// Tries that failed there: no connection, reset, too late.
    pub failures: Count,
    /// What is counted of its revision.
    pub figures: Arc<Figures>,
    /// Its revision, as in the table.
    pub revision: String,
    /// Names it in a cookie.
    pub mark: String,
    pub(super) in_flight: Count,
    /// Rises with each broken connection; those kept from before are not to be trusted.
    epoch: AtomicU64,
    retired: AtomicBool,
    /// Why the last connection to it could not be made.
    why: Mutex<String>,
}

impl Target {
    /// A target as the table has it, counted among those of its revision.
    pub fn new(wanted: &table::Target, protocol: Protocol, figures: Arc<Figures>) -> Arc<Self> {
        Arc::new(Self {
            serial: SERIAL.fetch_add(1, Ordering::Relaxed),
            id: wanted.id.clone(),
            generation: wanted.generation,
            address: wanted.address,
            protocol,
            requests: Count::default(),
            failures: Count::default(),
            figures,
            revision: wanted.revision.clone(),
            mark: sticky::mark_of(&wanted.id),
            in_flight: Count::default(),
            epoch: AtomicU64::new(0),
            retired: AtomicBool::new(false),
            why: Mutex::default(),
        })
    }

    /// Whether the table means this one: a target is the same when id, generation, address and
    /// protocol are.
    pub fn is(&self, wanted: &table::Target, protocol: Protocol) -> bool {
        wanted.id == self.id
            && wanted.generation == self.generation
            && wanted.address == self.address
            && protocol == self.protocol
    }

    /// Why the last connection to it could not be made.
    pub fn why(&self) -> String {
        lock(&self.why).clone()
    }

    /// Requests in flight there.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.get()
    }

    /// Which connections are to be trusted: those kept at this number.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }

    /// Whether it gets no more requests.
    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    /// It gets no more requests from now on.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Release);
    }
}

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
        self.backend.gateway.moment(self.began)
    }

    /// Names the target for [`Backend::seek`]'s `avoid`.
    pub fn key(&self) -> TargetKey {
        self.key
    }

    /// Keeps a connection for the next request and gives the place back.
    pub fn put_back(self, upstream: Box<Upstream>) {
        pools::put(&self.target, upstream);
    }

    /// The head of the answer is here: does it say that the target failed, or that it has too much to do?
    pub fn judge(&self, status: StatusCode, headers: &HeaderMap) {
        let now = self.backend.gateway.now();
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
        let now = self.backend.gateway.now();
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
            self.ends(self.backend.gateway.now());
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
        self.target.epoch.fetch_add(1, Ordering::Relaxed);
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
        *lock(&self.target.why) = why.to_owned();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let now = self.ended.get().unwrap_or_else(|| self.backend.gateway.now());
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
            self.backend.gateway.accounts.told_idle();
        }
    }
}

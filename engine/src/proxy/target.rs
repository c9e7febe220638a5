//! One instance as the gateway knows it, and a request's right to be there.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::backend::Backend;
use super::pools;
use super::shared::Count;
use super::upstream::Upstream;
use crate::control::events::Kind;
use crate::control::table;
use crate::dispatch::TargetKey;

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
    /// Tries sent there.
    pub requests: Count,
    /// Tries that failed there: no connection, reset, too late.
    pub failures: Count,
    pub(super) in_flight: Count,
    /// Rises with each broken connection; those kept from before are not to be trusted.
    epoch: AtomicU64,
    retired: AtomicBool,
}

impl Target {
    /// A target as the table has it.
    pub fn new(wanted: &table::Target) -> Arc<Self> {
        Arc::new(Self {
            serial: SERIAL.fetch_add(1, Ordering::Relaxed),
            id: wanted.id.clone(),
            generation: wanted.generation,
            address: wanted.address,
            requests: Count::default(),
            failures: Count::default(),
            in_flight: Count::default(),
            epoch: AtomicU64::new(0),
            retired: AtomicBool::new(false),
        })
    }

    /// Whether the table means this one: a target is the same when id, generation and address are.
    pub fn is(&self, wanted: &table::Target) -> bool {
        wanted.id == self.id && wanted.generation == self.generation && wanted.address == self.address
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

/// A request's right to be at a target; given back when dropped, exactly once.
pub struct Place {
    backend: Arc<Backend>,
    key: TargetKey,
    /// Where the request is to go.
    pub target: Arc<Target>,
}

impl Place {
    /// The right that dispatch has just granted.
    pub(super) fn new(backend: Arc<Backend>, key: TargetKey, target: Arc<Target>) -> Self {
        target.in_flight.more();
        Self { backend, key, target }
    }

    /// Names the target for [`Backend::seek`]'s `avoid`.
    pub fn key(&self) -> TargetKey {
        self.key
    }

    /// Keeps a connection for the next request and gives the place back.
    pub fn put_back(self, upstream: Box<Upstream>) {
        pools::put(&self.target, upstream);
    }

    /// The target broke an answer off that the client has seen the beginning of.
    pub fn broke_off(&self) {
        self.backend.failures.more();
    }

    /// A try at the target failed; connections kept to it are not to be trusted.
    pub fn failed(&self) {
        self.target.failures.more();
        self.target.epoch.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection to the target was made or was there.
    pub fn answered(&self) {
        self.backend.answered(self.key);
    }

    /// No connection to the target could be made.
    pub fn refused(&self, reason: &str) {
        if self.backend.refused(self.key) {
            self.backend.tell(Kind::TargetSuspect, Some(&self.target), reason);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let left = self.target.in_flight.less();
        self.backend.release(self.key);
        if left == 0 {
            self.backend.gateway.told_idle();
        }
    }
}

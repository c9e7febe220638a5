//! One instance as the gateway knows it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::revisions::Figures;
use super::sticky;
use crate::sync::{Count, lock};
use crate::table;
use crate::table::policy::Protocol;

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

    /// Connections kept to it are not to be trusted: one was closed as a request went out.
    pub fn distrust(&self) {
        self.epoch.fetch_add(1, Ordering::Relaxed);
    }

    /// No connection to it could be made, and why.
    pub fn unreachable(&self, why: &str) {
        why.clone_into(&mut lock(&self.why));
    }

    /// It gets no more requests from now on.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Release);
    }
}

//! What all services, listeners and requests of a gateway have in common, and how they reach it: whoever carries a
//! request knows this, and not the [`gateway`](super::gateway) that makes it and changes what there is to carry.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;

use super::accounts::Accounts;
use super::connections::Connections;
use super::stamps::Stamps;
use crate::dispatch::Time;
use crate::observe::events::Events;
use crate::observe::log::AccessLog;

/// See the module.
pub struct Common {
    /// What the node is told at once.
    pub events: Events,
    /// A line for each request, where the table asks for it.
    pub access_log: Arc<AccessLog>,
    /// The clock that requests and answers are stamped by.
    pub stamps: Arc<Stamps>,
    /// The client connections.
    pub connections: Arc<Connections>,
    /// What is still in flight on each instance.
    pub accounts: Accounts,
    start: Instant,
    /// Rises whenever targets may have been retired.
    retired: watch::Sender<u64>,
}

impl Common {
    /// For at most `connections_max` clients at a time, on so many workers.
    pub fn new(connections_max: usize, workers: usize) -> Arc<Self> {
        Arc::new(Self {
            events: Events::default(),
            access_log: Arc::default(),
            stamps: Arc::default(),
            connections: Connections::new(connections_max, workers),
            accounts: Accounts::default(),
            start: Instant::now(),
            retired: watch::Sender::default(),
        })
    }

    /// The clock of dispatch.
    pub fn now(&self) -> Time {
        self.start.elapsed()
    }

    /// A moment on the clock of dispatch.
    pub fn at(&self, moment: Instant) -> Time {
        moment.saturating_duration_since(self.start)
    }

    /// The moment that is a time of dispatch.
    pub fn moment(&self, time: Time) -> Instant {
        self.start + time
    }

    /// Targets may have been retired: every worker closes what it keeps to them.
    pub fn told_retired(&self) {
        self.retired.send_modify(|times| *times += 1);
    }

    /// Hears of each [`told_retired`](Self::told_retired).
    pub fn retirements(&self) -> watch::Receiver<u64> {
        self.retired.subscribe()
    }
}

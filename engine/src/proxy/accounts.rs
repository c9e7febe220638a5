//! The requests in flight on each instance, those that a predecessor of this gateway still carries among them: an instance is
//! drained when there are none.

use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::target::Target;
use crate::sync::lock;

/// Requests in flight at a gateway, by instance and generation.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remainder(pub Vec<(String, u64, u64)>);

/// See the module.
#[derive(Default)]
pub struct Accounts {
    /// Every target in the table or still with requests.
    targets: Mutex<Vec<Weak<Target>>>,
    /// What the predecessor still carries.
    remainder: Mutex<Remainder>,
    /// A target has no request in flight any more.
    idle: Notify,
}

impl Accounts {
    /// Remembers a target until its last request is over.
    pub fn remember(&self, target: &Arc<Target>) {
        let mut targets = lock(&self.targets);
        targets.retain(|known| known.strong_count() > 0);
        targets.push(Arc::downgrade(target));
    }

    /// A target has no request in flight any more.
    pub fn told_idle(&self) {
        self.idle.notify_waiters();
    }

    /// Requests in flight on an instance, in the table or not.
    pub fn in_flight(&self, id: &str, generation: u64) -> u64 {
        let targets = lock(&self.targets);
        let of_instance = targets.iter().filter_map(Weak::upgrade).filter(|t| t.id == id && t.generation == generation);
        let here: u64 = of_instance.map(|target| target.in_flight()).sum();
        let remainder = lock(&self.remainder);
        let there = remainder.0.iter().filter(|(known, number, _)| known == id && *number == generation);
        here + there.map(|(_, _, count)| count).sum::<u64>()
    }

    /// What a successor is to know of this gateway's requests.
    pub fn remainder(&self) -> Remainder {
        let targets = lock(&self.targets);
        let busy = targets.iter().filter_map(Weak::upgrade).filter(|target| target.in_flight() > 0);
        Remainder(busy.map(|target| (target.id.clone(), target.generation, target.in_flight())).collect())
    }

    /// What the predecessor still carries: its instances are not drained before it says so.
    pub fn told_remainder(&self, remainder: Remainder) {
        *lock(&self.remainder) = remainder;
        self.told_idle();
    }

    /// Waits until an instance has no request in flight, for at most `patience`; gives how many are left.
    pub async fn drained(&self, id: &str, generation: u64, patience: Duration) -> u64 {
        let draining = async {
            loop {
                let mut idle = std::pin::pin!(self.idle.notified());
                // From here on an end is not missed, whichever worker it happens on.
                idle.as_mut().enable();
                if self.in_flight(id, generation) == 0 {
                    return;
                }
                idle.await;
            }
        };
        // Whether it drained or time ran out shows in the count.
        let _ = tokio::time::timeout(patience, draining).await;
        self.in_flight(id, generation)
    }
}

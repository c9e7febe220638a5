//! What the gateway tells the node at once: a line of JSON for each event. What nobody listens to is kept for
//! the next one who does, up to a bound; the oldest go first.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};

use crate::sync::lock;
use bytes::Bytes;
use serde::Serialize;
use tokio::sync::mpsc;

/// Events kept for a listener that is slow or not there.
const KEPT_MAX: usize = 1024;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The process of an instance is gone; it gets no more requests.
    TargetExited,
    /// No connection to an instance could be made, or it answers nothing while others do; it is set aside for a
    /// while.
    TargetSuspect,
    /// An instance failed too often; it gets hardly any requests until it answers well.
    TargetEjected,
    /// An instance is as good as the others again.
    TargetReturned,
    /// A request waits for a service that has no target.
    NoTarget,
}

/// One event.
#[derive(Debug, Serialize)]
pub struct Event<'a> {
    /// What happened.
    pub kind: Kind,
    /// "application/service".
    pub service: &'a str,
    /// The instance, where it is about one.
    pub instance: Option<&'a str>,
    /// Its generation.
    pub generation: Option<u64>,
    /// Why, in words.
    pub reason: &'a str,
}

/// Those who listen, and what is kept while nobody does.
#[derive(Default)]
pub struct Events(Mutex<Told>);

#[derive(Default)]
struct Told {
    listeners: Vec<mpsc::Sender<Bytes>>,
    kept: VecDeque<Bytes>,
}

impl Events {
    /// Tells an event to all who listen. One who has fallen too far behind is cut off, and comes back.
    pub fn tell(&self, event: &Event<'_>) {
        let mut line = serde_json::to_vec(event).unwrap_or_default();
        line.push(b'\n');
        let line = Bytes::from(line);
        let mut told = self.told();
        told.listeners.retain(|listener| listener.try_send(line.clone()).is_ok());
        if told.listeners.is_empty() {
            if told.kept.len() == KEPT_MAX {
                told.kept.pop_front();
            }
            told.kept.push_back(line);
        }
    }

    /// Listens from now on, beginning with what nobody has heard.
    pub fn listen(&self) -> mpsc::Receiver<Bytes> {
        let (sender, receiver) = mpsc::channel(2 * KEPT_MAX);
        let mut told = self.told();
        for line in told.kept.drain(..) {
            // The channel has room for more than what is kept.
            let _ = sender.try_send(line);
        }
        told.listeners.push(sender);
        receiver
    }

    /// Sends all who listen away: a successor tells them from now on.
    pub fn close(&self) {
        self.told().listeners.clear();
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        lock(&self.0)
    }
}

//! What a simulated world is made of: what happens in it, requests, tries, and dispatchers with what they know.

use std::collections::HashMap;

use crate::dispatch::{Budget, Service, TargetInfo, TargetKey, Ticket, Time};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    Arrive,
    /// A try ends at its instance, well or not.
    End {
        index: usize,
        serial: u64,
        well: bool,
    },
    /// A request is tried again.
    Again(Name),
    /// A request may be hedged; if it can't be, again after this.
    Hedge(Name, Time),
    /// The client goes away.
    Leave(Name),
    /// A dispatcher looks at its queue though nothing happened.
    Wake(usize),
}

/// A request: its place in the slab, and its number, which no other has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    pub index: usize,
    pub number: usize,
}

#[derive(Debug)]
pub struct Request {
    pub number: usize,
    pub arrived: Time,
    pub deadline: Time,
    pub dispatcher: usize,
    pub ticket: Ticket,
    pub waits: bool,
    pub avoid: Vec<TargetKey>,
    pub tries: Vec<usize>,
    pub placed: u32,
    pub has_begun: bool,
}

#[derive(Debug)]
pub struct Try {
    pub serial: u64,
    pub request: usize,
    pub instance: usize,
    pub key: TargetKey,
    pub placed_at: Time,
    /// Requests that its dispatcher had there then, itself included.
    pub among: u32,
    pub is_begun: bool,
}

#[derive(Debug)]
pub struct Dispatcher {
    pub service: Service,
    pub instances: HashMap<TargetKey, usize>,
    pub waiting: HashMap<Ticket, usize>,
    pub retries: Budget,
    pub hedges: Budget,
    pub wake: Option<Time>,
}

/// How a request ends for its client.
pub enum Ending {
    Good,
    Late,
    Refused,
    Shed,
    Failed,
}

impl Dispatcher {
    /// With so many targets, named by their number.
    pub fn new(mut service: Service, count: usize) -> Self {
        let keys: Vec<_> =
            (0..count as u64).map(|name| service.add(TargetInfo { name, weight: 100 }, Time::ZERO)).collect();
        let instances = keys.iter().enumerate().map(|(index, key)| (*key, index)).collect();
        Self {
            service,
            instances,
            waiting: HashMap::new(),
            retries: Budget::default(),
            hedges: Budget::default(),
            wake: None,
        }
    }
}

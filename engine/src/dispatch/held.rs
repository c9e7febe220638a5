//! The requests that wait for one target each, apart from the queue; when and why is `own`'s.

use std::collections::BTreeMap;

use super::Time;
use super::ask::{Ask, Class, TargetKey, Ticket};
use super::waiting::Waiting;

/// Those that wait for their own target.
#[derive(Debug, Default)]
pub(super) struct Held(BTreeMap<(Class, Ticket), Claim>);

/// One of them.
#[derive(Debug)]
pub(super) struct Claim {
    pub own: TargetKey,
    pub until: Time,
    waiting: Waiting,
}

impl Held {
    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// How many go before a request of a class that comes now.
    pub fn before(&self, class: Class) -> usize {
        self.0.range(..=(class, Ticket::LAST)).count()
    }

    /// Keeps a request for its own target, until then.
    pub fn join(&mut self, ask: &Ask<'_>, own: TargetKey, until: Time, waiting: Waiting) {
        self.0.insert((ask.class, ask.ticket), Claim { own, until, waiting });
    }

    /// Lets a request go, if it is there.
    pub fn leave(&mut self, place: (Class, Ticket)) -> Option<Waiting> {
        self.0.remove(&place).map(|claim| claim.waiting)
    }

    /// The first of whom this is so, and its target.
    pub fn first(&self, is_so: impl Fn(&Claim) -> bool) -> Option<((Class, Ticket), TargetKey)> {
        self.0.iter().find(|(_, claim)| is_so(claim)).map(|(place, claim)| (*place, claim.own))
    }

    /// When the first of them has waited for long enough.
    pub fn ends_at(&self) -> Option<Time> {
        self.0.values().map(|claim| claim.until).min()
    }
}

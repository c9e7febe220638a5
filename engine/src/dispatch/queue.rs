//! The requests of one service that wait, and what is done while there are more than can be served in time.

use std::collections::BTreeMap;

use super::Time;
use super::ask::{Ask, Class, TargetKey, Ticket};
use super::held::Held;
use super::waiting::Waiting;

/// Requests in the order of class and ticket.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: BTreeMap<(Class, Ticket), Waiting>,
    /// Not in this order: each waits for one target.
    pub held: Held,
    bytes: u64,
}

impl Queue {
    pub fn len(&self) -> usize {
        self.waiting.len() + self.held.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether somebody waits who goes before a request.
    pub fn goes_before(&self, ask: &Ask<'_>) -> bool {
        self.waiting.first_key_value().is_some_and(|(first, _)| *first < (ask.class, ask.ticket))
    }

    /// How many go before a request of a class that comes now.
    pub fn before(&self, class: Class) -> usize {
        self.waiting.range(..=(class, Ticket::LAST)).count() + self.held.before(class)
    }

    /// Puts a request in its place; with `own`, apart from the others until that moment.
    pub fn join(&mut self, ask: &Ask<'_>, own: Option<(TargetKey, Time)>, now: Time) {
        let waiting =
            Waiting { avoid: ask.avoid.to_vec(), hash: ask.hash, since: now, deadline: ask.deadline, bytes: ask.bytes };
        self.bytes += ask.bytes;
        match own {
            Some((own, until)) => self.held.join(ask, own, until, waiting),
            None => drop(self.waiting.insert((ask.class, ask.ticket), waiting)),
        }
    }

    /// Any target will do for a request from now on.
    pub fn release(&mut self, place: (Class, Ticket)) {
        if let Some(waiting) = self.held.leave(place) {
            self.waiting.insert(place, waiting);
        }
    }

    pub fn leave(&mut self, place: (Class, Ticket)) {
        if let Some(waiting) = self.waiting.remove(&place).or_else(|| self.held.leave(place)) {
            self.bytes -= waiting.bytes;
        }
    }

    /// Who is served next: of the first class that waits the oldest, or the newest while that is overloaded, for which
    /// see [`is_overloaded`](Self::is_overloaded).
    pub fn next(&self, no_chance: Option<Time>, now: Time) -> Option<((Class, Ticket), &Waiting)> {
        let (&(class, _), _) = self.waiting.first_key_value()?;
        let mut of_class = self.of(class);
        let found = if self.is_overloaded(class, no_chance, now) { of_class.next_back() } else { of_class.next() };
        found.map(|(place, waiting)| (*place, waiting))
    }

    /// Of the oldest of each class the one whose time is over first.
    pub fn oldest(&self) -> Option<((Class, Ticket), &Waiting)> {
        let oldest = Class::ALL.iter().filter_map(|class| self.of(*class).next());
        oldest.min_by_key(|(_, waiting)| waiting.deadline).map(|(place, waiting)| (*place, waiting))
    }

    /// Whether the oldest of a class has used up half of its time: serving in order would then give all places to
    /// requests that end too late. A quarter is enough where a wait of `no_chance` is less than that: no queue gets so
    /// long by chance that could be served in order.
    fn is_overloaded(&self, class: Class, no_chance: Option<Time>, now: Time) -> bool {
        self.of(class).next().is_some_and(|(_, oldest)| {
            let time = oldest.deadline.saturating_sub(oldest.since);
            let most = no_chance.map_or(time / 2, |wait| wait.clamp(time / 4, time / 2));
            now.saturating_sub(oldest.since) > most
        })
    }

    fn of(&self, class: Class) -> impl DoubleEndedIterator<Item = (&(Class, Ticket), &Waiting)> {
        self.waiting.range((class, Ticket::FIRST)..=(class, Ticket::LAST))
    }
}

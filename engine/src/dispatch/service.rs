//! The queue and the places of one service.
//!
//! Rules:
//! * a target never has more requests than `concurrency`;
//! * no request waits while an eligible target has a free place;
//! * waiting requests are served by the age of their ticket, so a request that is tried again goes before
//!   younger ones;
//! * among eligible targets the one with the fewest requests in flight is taken, ties in turn; targets that
//!   the request has already failed on come last;
//! * a target that refused a connection is set aside for 100 ms, doubling to 2 s; when there is no other, it
//!   is tried again after 10 ms, doubling to 100 ms.

use std::collections::BTreeMap;
use std::time::Duration;

use slab::Slab;

use super::outcome::{Failure, Outcome};

/// A moment: the time since some fixed start.
pub type Time = Duration;

const ASIDE_FIRST: Duration = Duration::from_millis(100);
const ASIDE_MAX: Duration = Duration::from_secs(2);
const LAST_HOPE_FIRST: Duration = Duration::from_millis(10);
const LAST_HOPE_MAX: Duration = Duration::from_millis(100);

/// Names a target for as long as it, or a request on it, lives; never names another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TargetKey {
    index: usize,
    serial: u64,
}

/// A request's place in the order of arrival; kept when it is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// What one service allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Requests at a time per target; `None`: as many as come.
    pub concurrency: Option<u32>,
    /// Requests that may wait at once.
    pub queue_max: usize,
}

/// The answer to [`Service::seek`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sought {
    /// A place on this target is taken for the request.
    Placed(TargetKey),
    /// The request is in the queue; [`Service::grant`] will name it, unless [`Service::cancel`] comes first.
    Waiting,
    /// The queue is full; nothing was changed.
    Full,
}

#[derive(Debug)]
struct Target {
    serial: u64,
    in_flight: u32,
    /// False: gets no request any more, and is forgotten once nothing is in flight.
    serving: bool,
    strikes: u32,
    aside_until: Time,
    last_hope_at: Time,
}

/// The targets, the places and the queue of one service.
#[derive(Debug)]
pub struct Service {
    limits: Limits,
    targets: Slab<Target>,
    /// By ticket, hence by age; the value is the targets to avoid.
    queue: BTreeMap<Ticket, Vec<TargetKey>>,
    next_serial: u64,
    next_ticket: u64,
    /// Where the next search begins, so that ties go round.
    turn: usize,
}

impl Service {
    /// A service without targets.
    pub fn new(limits: Limits) -> Self {
        Self { limits, targets: Slab::new(), queue: BTreeMap::new(), next_serial: 0, next_ticket: 0, turn: 0 }
    }

    /// Follows other limits from now on. Places taken beyond a smaller limit stay taken until released.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Adds a target; the caller then calls [`Service::grant`] until it gives nothing.
    pub fn add(&mut self) -> TargetKey {
        self.next_serial += 1;
        let serial = self.next_serial;
        let index = self.targets.insert(Target {
            serial,
            in_flight: 0,
            serving: true,
            strikes: 0,
            aside_until: Time::ZERO,
            last_hope_at: Time::ZERO,
        });
        TargetKey { index, serial }
    }

    /// Sends nothing more to a target. What is in flight there stays counted until released.
    pub fn remove(&mut self, key: TargetKey) {
        if let Some(target) = self.target_mut(key) {
            target.serving = false;
            if target.in_flight == 0 {
                self.targets.remove(key.index);
            }
        }
    }

    /// A ticket for a request that has just arrived.
    pub fn ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        Ticket(self.next_ticket)
    }

    /// Seeks a place for a request. `avoid` holds the targets it has failed on already; a request that comes
    /// back so was admitted once and is not refused for a full queue.
    pub fn seek(&mut self, ticket: Ticket, avoid: &[TargetKey], now: Time) -> Sought {
        let overtakes = self.queue.first_key_value().is_some_and(|(first, _)| *first < ticket);
        if !overtakes && let Some(key) = self.choose(avoid, now) {
            self.take(key);
            return Sought::Placed(key);
        }
        if avoid.is_empty() && self.queue.len() >= self.limits.queue_max {
            return Sought::Full;
        }
        self.queue.insert(ticket, avoid.to_vec());
        Sought::Waiting
    }

    /// Takes a request out of the queue, if it is there.
    pub fn cancel(&mut self, ticket: Ticket) {
        self.queue.remove(&ticket);
    }

    /// Gives a free place to the oldest request that waits; `None` when there is no such pair. To be called
    /// until it gives nothing after every `add`, `release`, `refused`, `answered`, `set_limits` and `wake_at`.
    pub fn grant(&mut self, now: Time) -> Option<(Ticket, TargetKey)> {
        let avoid = self.queue.first_entry()?;
        let (ticket, avoid) = (*avoid.key(), avoid.get().clone());
        let key = self.choose(&avoid, now)?;
        self.queue.remove(&ticket);
        self.take(key);
        Some((ticket, key))
    }

    /// Gives back the place of a request that is over; true when it is news that no connection to the target can
    /// be made.
    pub fn finished(&mut self, key: TargetKey, outcome: &Outcome, now: Time) -> bool {
        let news = match outcome {
            Outcome::Failed(Failure::Connect) => self.refused(key, now),
            Outcome::Busy { retry_after } => {
                if let Some(target) = self.target_mut(key) {
                    target.aside_until = target.aside_until.max(now + *retry_after);
                    target.last_hope_at = target.last_hope_at.max(now + LAST_HOPE_MAX);
                }
                false
            }
            _ => false,
        };
        self.release(key);
        news
    }

    /// Whether a target other than these may get requests.
    pub fn has_other(&self, avoid: &[TargetKey]) -> bool {
        self.targets
            .iter()
            .any(|(index, target)| target.serving && !avoid.contains(&TargetKey { index, serial: target.serial }))
    }

    /// Gives back the place of a request that is over, however it ended.
    pub fn release(&mut self, key: TargetKey) {
        if let Some(target) = self.target_mut(key) {
            debug_assert!(target.in_flight > 0, "a place is released once");
            target.in_flight = target.in_flight.saturating_sub(1);
            if target.in_flight == 0 && !target.serving {
                self.targets.remove(key.index);
            }
        }
    }

    /// A connection to the target could not be made: it is set aside for a while. True when that is news.
    pub fn refused(&mut self, key: TargetKey, now: Time) -> bool {
        let Some(target) = self.target_mut(key) else { return false };
        let news = target.strikes == 0;
        let doublings = target.strikes.min(8);
        target.strikes += 1;
        target.aside_until = now + (ASIDE_FIRST * 2u32.pow(doublings)).min(ASIDE_MAX);
        target.last_hope_at = now + (LAST_HOPE_FIRST * 2u32.pow(doublings)).min(LAST_HOPE_MAX);
        news
    }

    /// A connection to the target was made: it is as good as the others again. True when that is news.
    pub fn answered(&mut self, key: TargetKey) -> bool {
        let Some(target) = self.target_mut(key).filter(|target| target.strikes > 0) else { return false };
        target.strikes = 0;
        target.aside_until = Time::ZERO;
        target.last_hope_at = Time::ZERO;
        true
    }

    /// When a target that is set aside can next be given to a request that waits; `None`: time alone changes
    /// nothing.
    pub fn wake_at(&self, now: Time) -> Option<Time> {
        if self.queue.is_empty() {
            return None;
        }
        let fresh = self.has_fresh(now);
        self.targets
            .iter()
            .filter(|(_, target)| target.serving && self.has_place(target))
            .map(|(_, target)| if fresh { target.aside_until } else { target.aside_until.min(target.last_hope_at) })
            .filter(|at| *at > now)
            .min()
    }

    /// Requests that wait.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Targets that may get requests.
    pub fn serving(&self) -> usize {
        self.targets.iter().filter(|(_, target)| target.serving).count()
    }

    /// Requests in flight on a target; 0 for one that is gone.
    pub fn in_flight(&self, key: TargetKey) -> u32 {
        self.target(key).map_or(0, |target| target.in_flight)
    }

    fn target(&self, key: TargetKey) -> Option<&Target> {
        self.targets.get(key.index).filter(|target| target.serial == key.serial)
    }

    fn target_mut(&mut self, key: TargetKey) -> Option<&mut Target> {
        self.targets.get_mut(key.index).filter(|target| target.serial == key.serial)
    }

    fn take(&mut self, key: TargetKey) {
        self.turn = key.index + 1;
        if let Some(target) = self.target_mut(key) {
            target.in_flight += 1;
        }
    }

    fn has_place(&self, target: &Target) -> bool {
        self.limits.concurrency.is_none_or(|limit| target.in_flight < limit)
    }

    /// Whether any target is not set aside: then those that are get nothing.
    fn has_fresh(&self, now: Time) -> bool {
        self.targets.iter().any(|(_, target)| target.serving && target.aside_until <= now)
    }

    fn choose(&self, avoid: &[TargetKey], now: Time) -> Option<TargetKey> {
        let fresh = self.has_fresh(now);
        let from_turn = |index: usize| (index < self.turn, index);
        self.targets
            .iter()
            .filter(|(_, target)| target.serving && self.has_place(target))
            .filter(|(_, target)| target.aside_until <= now || (!fresh && target.last_hope_at <= now))
            .map(|(index, target)| (TargetKey { index, serial: target.serial }, target.in_flight))
            .min_by_key(|(key, in_flight)| (avoid.contains(key), *in_flight, from_turn(key.index)))
            .map(|(key, _)| key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_secs(100);

    fn service(concurrency: Option<u32>) -> Service {
        Service::new(Limits { concurrency, queue_max: 2 })
    }

    fn seek(service: &mut Service, now: Time) -> Sought {
        let ticket = service.ticket();
        service.seek(ticket, &[], now)
    }

    #[test]
    fn equal_targets_are_taken_in_turn() {
        let mut service = service(None);
        let (a, b) = (service.add(), service.add());

        let taken: Vec<_> = (0..4).map(|_| seek(&mut service, NOW)).collect();

        assert_eq!(taken, [a, b, a, b].map(Sought::Placed));
    }

    #[test]
    fn the_target_with_fewest_in_flight_is_taken() {
        let mut service = service(None);
        let (a, b) = (service.add(), service.add());
        seek(&mut service, NOW);
        seek(&mut service, NOW);
        seek(&mut service, NOW);
        service.release(b);

        let taken = seek(&mut service, NOW);

        assert_eq!((taken, service.in_flight(a), service.in_flight(b)), (Sought::Placed(b), 2, 1));
    }

    #[test]
    fn the_oldest_request_gets_the_place_that_frees() {
        let mut service = service(Some(1));
        let target = service.add();
        seek(&mut service, NOW);
        let (older, younger) = (service.ticket(), service.ticket());
        service.seek(younger, &[], NOW);
        service.seek(older, &[target], NOW);
        service.release(target);

        let granted = service.grant(NOW);

        assert_eq!((granted, service.waiting()), (Some((older, target)), 1));
    }

    #[test]
    fn a_full_queue_refuses_new_requests_but_not_returning_ones() {
        let mut service = service(Some(1));
        let target = service.add();
        for _ in 0..3 {
            seek(&mut service, NOW);
        }
        let returning = service.ticket();

        let answers = (seek(&mut service, NOW), service.seek(returning, &[target], NOW));

        assert_eq!(answers, (Sought::Full, Sought::Waiting));
    }

    #[test]
    fn a_target_that_refused_is_set_aside_while_there_is_another() {
        let mut service = service(None);
        let (a, b) = (service.add(), service.add());
        service.refused(a, NOW);

        let taken: Vec<_> = (0..3).map(|_| seek(&mut service, NOW + Duration::from_millis(99))).collect();
        let after = seek(&mut service, NOW + Duration::from_millis(100));

        assert_eq!((taken, after), (vec![Sought::Placed(b); 3], Sought::Placed(a)));
    }

    #[test]
    fn the_only_target_is_tried_again_soon_though_it_refused() {
        let mut service = service(None);
        let only = service.add();
        service.refused(only, NOW);

        let at_once = seek(&mut service, NOW);
        let soon = service.wake_at(NOW);

        assert_eq!((at_once, soon), (Sought::Waiting, Some(NOW + LAST_HOPE_FIRST)));
        assert!(service.grant(NOW).is_none());
        assert!(service.grant(NOW + LAST_HOPE_FIRST).is_some());
    }

    #[test]
    fn setting_aside_grows_to_a_bound_and_ends_with_an_answer() {
        let mut service = service(None);
        let target = service.add();
        for _ in 0..40 {
            service.refused(target, NOW);
        }
        seek(&mut service, NOW);

        let bound = service.wake_at(NOW);
        service.answered(target);

        assert_eq!((bound, service.wake_at(NOW)), (Some(NOW + LAST_HOPE_MAX), None));
        assert!(service.grant(NOW).is_some());
    }

    #[test]
    fn a_request_avoids_the_target_it_failed_on_unless_there_is_no_other() {
        let mut service = service(Some(1));
        let (a, b) = (service.add(), service.add());
        let ticket = service.ticket();

        let first = service.seek(ticket, &[a], NOW);
        let second = service.seek(ticket, &[a], NOW);

        assert_eq!((first, second), (Sought::Placed(b), Sought::Placed(a)));
    }

    #[test]
    fn a_removed_target_gets_nothing_and_is_counted_to_its_last_request() {
        let mut service = service(None);
        let target = service.add();
        seek(&mut service, NOW);
        service.remove(target);

        let refused = seek(&mut service, NOW);

        assert_eq!((refused, service.in_flight(target), service.serving()), (Sought::Waiting, 1, 0));
        service.release(target);
        assert_eq!(service.in_flight(target), 0);
    }

    #[test]
    fn an_old_key_never_names_a_newer_target() {
        let mut service = service(None);
        let old = service.add();
        service.remove(old);
        let new = service.add();

        service.remove(old);

        assert_eq!(seek(&mut service, NOW), Sought::Placed(new));
    }
}

//! Requests that belong to one target, such as those of a client with a cookie that names it.
//!
//! Such a request waits for its own target for as long as a request takes there on average; then it goes wherever there
//! is a place. Meanwhile it stands in nobody's way: requests that any target would do for are not behind it. The
//! first place that frees at its target goes to whoever of it and the queue came first.

use super::Time;
use super::ask::{Ask, Next, TargetKey};
use super::service::Service;

/// The wait where nothing is known of how long requests take.
const UNKNOWN: Time = Time::from_millis(100);

impl Service {
    /// Whether a request that belongs to a target is to wait for it, and until when; `None`: it takes what there is.
    pub(super) fn waits_for_own(&self, ask: &Ask<'_>, now: Time) -> Option<(TargetKey, Time)> {
        let own = ask.own.filter(|own| self.is_open(*own, now))?;
        let average = self.known.mean.and_then(|mean| Time::try_from_secs_f64(mean).ok());
        Some((own, now + average.unwrap_or(UNKNOWN)))
    }

    /// Whether the target may get requests, but for the number that it has.
    fn is_open(&self, own: TargetKey, now: Time) -> bool {
        self.target(own).is_some_and(|target| target.serving && self.opens_at(target, true) <= now)
    }

    pub(super) fn has_free_place(&self, own: TargetKey, now: Time) -> bool {
        self.target(own).is_some_and(|target| target.has_place(self.limit(target, now)))
    }

    /// Whether somebody waits for a place that is free: it is theirs before it is a newcomer's.
    pub(super) fn owes_place(&self, now: Time) -> bool {
        self.queue.held.first(|claim| self.has_free_place(claim.own, now)).is_some()
    }

    /// Lets those go to any target that have waited for their own for long enough, or in vain.
    pub(super) fn release_held(&mut self, now: Time) {
        while let Some((place, _)) = self.queue.held.first(|claim| claim.until <= now || !self.is_open(claim.own, now))
        {
            self.queue.release(place);
        }
    }

    /// The place that has become free for the first of those who wait for their own target, unless somebody in the
    /// queue came before.
    pub(super) fn next_held(&mut self, now: Time) -> Option<Next> {
        let (place, own) = self.queue.held.first(|claim| self.has_free_place(claim.own, now))?;
        if self.queue.next(self.no_chance(), now).is_some_and(|(first, _)| first < place) {
            return None;
        }
        self.queue.leave(place);
        self.take(own, now);
        Some(Next::Granted(place.1, own))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Class, Concurrency, Outcome, Policy, Sought, TargetInfo, Ticket};
    use super::*;

    const NOW: Time = Time::from_secs(100);
    const INFO: TargetInfo = TargetInfo { name: 0, weight: 100 };

    /// Two targets of one place each; both are taken.
    fn full() -> (Service, TargetKey, TargetKey) {
        let policy = Policy { concurrency: Concurrency::Limit(1), slow_start: Time::ZERO, ..Policy::default() };
        let mut service = Service::new(policy, 7);
        let keys = (service.add(INFO, NOW), service.add(INFO, NOW));
        service.take(keys.0, NOW);
        service.take(keys.1, NOW);
        (service, keys.0, keys.1)
    }

    fn seek(service: &mut Service, own: Option<TargetKey>) -> (Ticket, Sought) {
        let (ticket, deadline) = (service.ticket(), NOW + Time::from_secs(60));
        let ask =
            Ask { hash: None, ticket, avoid: &[], own, is_again: false, class: Class::Normal, deadline, bytes: 1 };
        (ticket, service.seek(&ask, NOW))
    }

    fn give_back(service: &mut Service, key: TargetKey) {
        service.finished(key, false, &Outcome::Abandoned { after: Time::ZERO }, NOW);
    }

    #[test]
    fn a_request_goes_to_its_own_target() {
        let (mut service, a, b) = full();
        give_back(&mut service, a);
        give_back(&mut service, b);

        assert_eq!(seek(&mut service, Some(b)).1, Sought::Placed(b));
    }

    #[test]
    fn it_waits_for_its_own_beside_another_that_is_free() {
        let (mut service, a, b) = full();
        give_back(&mut service, a);

        let (ticket, sought) = seek(&mut service, Some(b));
        let before = service.next(NOW);
        give_back(&mut service, b);

        assert_eq!((sought, before), (Sought::Waiting, None));
        assert_eq!(service.next(NOW), Some(Next::Granted(ticket, b)));
    }

    #[test]
    fn it_waits_no_longer_than_a_request_takes() {
        let (mut service, a, b) = full();
        let (ticket, _) = seek(&mut service, Some(b));
        give_back(&mut service, a);

        let at = service.wake_at(NOW).unwrap();

        assert_eq!(at, NOW + UNKNOWN);
        assert_eq!(service.next(at - Time::from_millis(1)), None);
        assert_eq!(service.next(at), Some(Next::Granted(ticket, a)));
    }

    #[test]
    fn it_stands_in_nobodys_way() {
        let (mut service, a, b) = full();
        seek(&mut service, Some(b));
        let (other, _) = seek(&mut service, None);
        give_back(&mut service, a);

        assert_eq!(service.next(NOW), Some(Next::Granted(other, a)));
    }

    #[test]
    fn who_came_before_is_served_before() {
        let (mut service, _, b) = full();
        let (older, _) = seek(&mut service, None);
        let (younger, _) = seek(&mut service, Some(b));
        give_back(&mut service, b);

        assert_eq!(service.next(NOW), Some(Next::Granted(older, b)));
        give_back(&mut service, b);
        assert_eq!(service.next(NOW), Some(Next::Granted(younger, b)));
    }

    #[test]
    fn a_newcomer_does_not_take_the_place_that_it_waited_for() {
        let (mut service, _, b) = full();
        let (ticket, _) = seek(&mut service, Some(b));
        give_back(&mut service, b);

        assert_eq!(seek(&mut service, None).1, Sought::Waiting);
        assert_eq!(service.next(NOW), Some(Next::Granted(ticket, b)));
    }

    #[test]
    fn it_does_not_wait_for_a_target_that_goes() {
        let (mut service, a, b) = full();
        let (ticket, _) = seek(&mut service, Some(b));
        give_back(&mut service, a);

        service.remove(b);

        assert_eq!(service.next(NOW), Some(Next::Granted(ticket, a)));
    }

    #[test]
    fn it_leaves_when_its_client_does() {
        let (mut service, _, b) = full();
        let (ticket, _) = seek(&mut service, Some(b));

        service.cancel(Class::Normal, ticket);
        give_back(&mut service, b);

        assert_eq!((service.waiting(), service.next(NOW)), (0, None));
    }
}

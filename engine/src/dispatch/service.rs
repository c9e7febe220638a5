//! The queue and the places of one service. What it decides by is in files of its own, as parts of [`Service`]: which
//! target (`choose`), who is not taken in (`admission`), who waits for one target alone (`own`), and what an answer says of
//! its target (`ending`).
//!
//! Rules:
//! * a target never has more requests than its limit;
//! * no request waits while an eligible target has a free place;
//! * waiting requests are served by class, then by the age of their ticket, so that a request that is tried again
//!   goes before younger ones; while the oldest has used up half of its time, or a quarter where so long a wait is no
//!   chance, the newest goes first, since those that can't be in time any more would otherwise take all places;
//! * a request whose expected wait is longer than its time is refused at once; one that waits and can hardly be in time
//!   any more is sent away;
//! * among eligible targets the one where the answer is expected first is taken, see [`super::choose`]; targets
//!   that the request has already failed on come last;
//! * a target that refused a connection is set aside for 100 ms, doubling to 2 s; when there is no other, it
//!   is tried again after 10 ms, doubling to 100 ms;
//! * a target that fails, stalls or asks to be left alone gets nothing for a while, see [`super::target`]; never
//!   more than half of them at a time.

use slab::Slab;

use super::Time;
use super::ask::{Ask, Class, Next, Notice, Refusal, Sought, TargetKey, Ticket};
use super::choosing::{Choosing, Wish};
use super::estimate::{Known, Times};
use super::policy::Policy;
use super::queue::Queue;
use super::target::{Target, TargetInfo};
use super::waiting::Waiting;
use crate::chance::Chance;

/// How often it is looked at again whether a request that is held had better go to a slow target.
const HOLD_LOOK_MIN: Time = Time::from_millis(5);

/// The targets, the places and the queue of one service.
#[derive(Debug)]
pub struct Service {
    pub(super) policy: Policy,
    pub(super) targets: Slab<Target>,
    pub(super) queue: Queue,
    next_serial: u64,
    next_ticket: u64,
    /// Where the next search begins, so that ties go round.
    pub(super) turn: usize,
    pub(super) times: Times,
    pub(super) known: Known,
    pub(super) chance: Chance,
    /// When a target last answered.
    pub(super) heard_at: Time,
    pub(super) notices: Vec<Notice>,
    pub(super) choosing: Choosing,
}

impl Service {
    /// A service without targets; `seed` is where its chance comes from.
    pub fn new(policy: Policy, seed: u64) -> Self {
        Self {
            policy,
            targets: Slab::new(),
            queue: Queue::default(),
            next_serial: 0,
            next_ticket: 0,
            turn: 0,
            times: Times::default(),
            known: Known::default(),
            chance: Chance::new(seed),
            heard_at: Time::ZERO,
            notices: Vec::new(),
            choosing: Choosing::default(),
        }
    }

    /// Follows other limits from now on. Places taken beyond a smaller limit stay taken until given back.
    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// Adds a target; the caller then calls [`Service::next`] until it gives nothing.
    pub fn add(&mut self, info: TargetInfo, now: Time) -> TargetKey {
        self.choosing.forget();
        self.next_serial += 1;
        let serial = self.next_serial;
        // Where none has proved itself there is nobody to leave the requests to.
        let has_peers = self.targets.iter().any(|(_, target)| target.serving && target.has_proved_itself());
        let index = self.targets.insert(Target::new(serial, info, has_peers.then_some(now), now));
        TargetKey { index, serial }
    }

    /// Sends nothing more to a target. What is in flight there stays counted until given back.
    pub fn remove(&mut self, key: TargetKey) {
        self.choosing.forget();
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

    /// Seeks a place for a request.
    pub fn seek(&mut self, ask: &Ask<'_>, now: Time) -> Sought {
        let own = self.waits_for_own(ask, now);
        if !self.queue.goes_before(ask) && !self.owes_place(now) {
            let key = match own {
                Some((own, _)) => self.has_free_place(own, now).then_some(own),
                None => self.choose(&Wish { avoid: ask.avoid, hash: ask.hash, waited: Time::ZERO }, now),
            };
            if let Some(key) = key {
                self.take(key, now);
                return Sought::Placed(key);
            }
        }
        if !ask.is_again
            && let Some(refusal) = self.refusal(ask, now)
        {
            return Sought::Refused(refusal);
        }
        self.queue.join(ask, own, now);
        Sought::Waiting
    }

    /// Takes a place on a target other than these if one is idle and nobody waits: for a second try beside a first.
    pub fn seek_idle(&mut self, avoid: &[TargetKey], now: Time) -> Option<TargetKey> {
        let (places, taken) = self.places();
        if !self.queue.is_empty() || places.is_some_and(|places| 4 * taken > 3 * places) {
            return None;
        }
        let key = self.choose(&Wish { avoid, ..Wish::default() }, now).filter(|key| !avoid.contains(key))?;
        self.take(key, now);
        Some(key)
    }

    /// Takes a request out of the queue, if it is there.
    pub fn cancel(&mut self, class: Class, ticket: Ticket) {
        self.queue.leave((class, ticket));
    }

    /// What is to be done for a request that waits; `None`: nothing now. To be called until it gives nothing after
    /// every `add`, `finished`, `connected`, `begun`, `set_policy` and `wake_at`.
    pub fn next(&mut self, now: Time) -> Option<Next> {
        if self.queue.is_empty() {
            return None;
        }
        self.release_held(now);
        if let Some(granted) = self.next_held(now) {
            return Some(granted);
        }
        let (oldest, next) = (self.queue.oldest(), self.queue.next(self.no_chance(), now));
        let is_late = |waiting: &Waiting| self.last_call(waiting).is_some_and(|at| at <= now);
        let late = oldest.into_iter().chain(next).find(|(_, waiting)| is_late(waiting));
        if let Some((place, waiting)) = late {
            let wait = now.saturating_sub(waiting.since);
            self.queue.leave(place);
            return Some(Next::Shed(place.1, Refusal::Late { wait }));
        }
        let (place, waiting) = next?;
        let (avoid, hash, waited) = (waiting.avoid.clone(), waiting.hash, now.saturating_sub(waiting.since));
        let key = self.choose(&Wish { avoid: &avoid, hash, waited }, now)?;
        self.queue.leave(place);
        self.take(key, now);
        Some(Next::Granted(place.1, key))
    }

    /// Whether a target other than these may get requests.
    pub fn has_other(&self, avoid: &[TargetKey]) -> bool {
        self.targets
            .iter()
            .any(|(index, target)| target.serving && !avoid.contains(&TargetKey { index, serial: target.serial }))
    }

    /// When time alone next changes something for a request that waits; `None`: it does not.
    pub fn wake_at(&self, now: Time) -> Option<Time> {
        if self.queue.is_empty() {
            return None;
        }
        let fresh = self.has_fresh(now);
        let opening = self
            .targets
            .iter()
            // One that stalls opens when it answers, not when some time is over.
            .filter(|(_, target)| target.serving && !target.stalled && target.has_place(self.full_limit(target)))
            .map(|(_, target)| self.opens_at(target, fresh))
            .filter(|at| *at > now)
            .min();
        let rising =
            self.targets.iter().any(|(_, target)| target.serving && self.limit(target, now) < self.full_limit(target));
        let held = self.queue.held.ends_at().map(|at| at.max(now));
        let last_call = self.queue.oldest().filter(|(_, oldest)| self.heard_at > oldest.since);
        let last_call = last_call.and_then(|(_, oldest)| self.last_call(oldest)).map(|at| at.max(now));
        let holding = self.policy.hold.then(|| now + self.known.p50.unwrap_or_default().max(HOLD_LOOK_MIN));
        let rising = rising.then(|| now + super::target::RISE_EACH);
        opening.into_iter().chain(rising).chain(held).chain(holding).chain(last_call).min()
    }

    fn last_call(&self, waiting: &Waiting) -> Option<Time> {
        self.known.p50.map(|p50| waiting.last_call(p50, self.heard_at))
    }

    /// What happened to targets since this was asked last.
    pub fn notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
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

    /// Requests at a time that a target may have at a moment; `None`: as many as come, or it is gone.
    pub fn limit_of(&self, key: TargetKey, now: Time) -> Option<u32> {
        self.limit(self.target(key)?, now)
    }

    pub(super) fn key_of(&self, index: usize) -> TargetKey {
        TargetKey { index, serial: self.targets[index].serial }
    }

    pub(super) fn note(&mut self, notice: Notice) {
        self.notices.push(notice);
    }

    pub(super) fn target(&self, key: TargetKey) -> Option<&Target> {
        self.targets.get(key.index).filter(|target| target.serial == key.serial)
    }

    pub(super) fn target_mut(&mut self, key: TargetKey) -> Option<&mut Target> {
        self.targets.get_mut(key.index).filter(|target| target.serial == key.serial)
    }

    pub(super) fn take(&mut self, key: TargetKey, now: Time) {
        self.turn = key.index + 1;
        if let Some(target) = self.target_mut(key) {
            target.take(now);
        }
    }

    /// A number from 0 up to 1.
    pub(super) fn unit(&mut self) -> f64 {
        self.chance.unit()
    }
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;

//! What holds for every sequence of events: places are never over-used, no request waits beside an eligible
//! free place, and every request that waits is answered once; and nothing that happens to targets, in whatever order and
//! at whatever times, breaks it.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use proptest::prelude::*;

use super::{
    Ask, Class, Concurrency, Failure, Next, Outcome, Policy, Refusal, Service, Sought, TargetInfo, TargetKey, Ticket,
    Time,
};

const INFO: TargetInfo = TargetInfo { name: 0, weight: 100 };

#[derive(Clone, Debug)]
enum Step {
    Add,
    Remove(usize),
    Arrive,
    ArriveFor(usize),
    Finish(usize),
    FailAndComeBack(usize),
    Refuse(usize),
    Cancel(usize),
    Pass(u16),
    Limit(Option<u32>),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => Just(Step::Add),
        1 => any::<usize>().prop_map(Step::Remove),
        6 => Just(Step::Arrive),
        2 => any::<usize>().prop_map(Step::ArriveFor),
        6 => any::<usize>().prop_map(Step::Finish),
        2 => any::<usize>().prop_map(Step::FailAndComeBack),
        2 => any::<usize>().prop_map(Step::Refuse),
        1 => any::<usize>().prop_map(Step::Cancel),
        3 => (0u16..3000).prop_map(Step::Pass),
        1 => prop::option::of(1u32..4).prop_map(Step::Limit),
    ]
}

/// The service beside a plain account of what it was told and what it answered.
struct World {
    service: Service,
    now: Time,
    concurrency: Option<u32>,
    serving: Vec<TargetKey>,
    placed: Vec<(Ticket, TargetKey)>,
    waiting: HashSet<Ticket>,
    /// Those of them that wait for a target of their own, and since when.
    own: HashMap<Ticket, (TargetKey, Time)>,
    refused: HashMap<TargetKey, Time>,
}

/// Without what keeps a free place from a request for a time: that is tested by itself.
fn policy(concurrency: Option<u32>) -> Policy {
    Policy { concurrency: concurrency.into(), queue_max: Some(8), slow_start: Time::ZERO, ..Policy::default() }
}

impl World {
    fn new() -> Self {
        Self {
            service: Service::new(policy(Some(2)), 7),
            now: Time::from_secs(1),
            concurrency: Some(2),
            serving: Vec::new(),
            placed: Vec::new(),
            waiting: HashSet::new(),
            own: HashMap::new(),
            refused: HashMap::new(),
        }
    }

    fn seek(&mut self, ticket: Ticket, avoid: &[TargetKey], own: Option<TargetKey>) {
        let deadline = self.now + Duration::from_secs(3600);
        let ask = Ask {
            ticket,
            avoid,
            own,
            hash: None,
            is_again: !avoid.is_empty(),
            class: Class::Normal,
            deadline,
            bytes: 1,
        };
        match self.service.seek(&ask, self.now) {
            Sought::Placed(key) => self.place(ticket, key),
            Sought::Waiting => {
                assert!(self.waiting.insert(ticket), "a request waits once");
                self.own.extend(own.map(|own| (ticket, (own, self.now))));
            }
            Sought::Refused(Refusal::QueueFull) => assert!(avoid.is_empty() && self.waiting.len() >= 8),
            Sought::Refused(Refusal::Late { .. }) => panic!("an hour is enough"),
        }
    }

    /// A place is given on a target that serves, within its limit at that moment.
    fn place(&mut self, ticket: Ticket, key: TargetKey) {
        assert!(self.serving.contains(&key), "only a serving target gets a request");
        self.placed.push((ticket, key));
        if let Some(limit) = self.concurrency {
            assert!(self.service.in_flight(key) <= limit, "a place is over-used");
        }
    }

    fn grant_all(&mut self) {
        while let Some(next) = self.service.next(self.now) {
            let Next::Granted(ticket, key) = next else { panic!("an hour is enough") };
            assert!(self.waiting.remove(&ticket), "a grant goes to a request that waits");
            self.place(ticket, key);
        }
    }

    fn apply(&mut self, step: &Step) {
        match *step {
            Step::Add if self.serving.len() < 5 => self.serving.push(self.service.add(INFO, self.now)),
            Step::Remove(at) if !self.serving.is_empty() => {
                let key = self.serving.swap_remove(at % self.serving.len());
                self.service.remove(key);
            }
            Step::Arrive => {
                let ticket = self.service.ticket();
                self.seek(ticket, &[], None);
            }
            Step::ArriveFor(at) if !self.serving.is_empty() => {
                let ticket = self.service.ticket();
                let own = self.serving[at % self.serving.len()];
                self.seek(ticket, &[], Some(own));
            }
            Step::Finish(at) if !self.placed.is_empty() => {
                let (_, key) = self.placed.swap_remove(at % self.placed.len());
                self.service.connected(key);
                self.refused.remove(&key);
                let took = Duration::from_millis(5);
                self.service.finished(key, false, &Outcome::Ok { took, among: 1 }, self.now);
            }
            Step::FailAndComeBack(at) if !self.placed.is_empty() => {
                let (ticket, key) = self.placed.swap_remove(at % self.placed.len());
                self.service.finished(key, false, &Outcome::Abandoned { after: Duration::ZERO }, self.now);
                self.grant_all();
                self.seek(ticket, &[key], None);
            }
            Step::Refuse(at) if !self.placed.is_empty() => {
                let (ticket, key) = self.placed.swap_remove(at % self.placed.len());
                self.refused.insert(key, self.now);
                self.service.finished(key, false, &Outcome::Failed(Failure::Connect), self.now);
                self.grant_all();
                self.seek(ticket, &[key], None);
            }
            Step::Cancel(at) if !self.waiting.is_empty() => {
                let mut tickets: Vec<_> = self.waiting.iter().copied().collect();
                tickets.sort();
                let ticket = tickets[at % tickets.len()];
                self.service.cancel(Class::Normal, ticket);
                self.waiting.remove(&ticket);
            }
            Step::Pass(ms) => self.now += Duration::from_millis(ms.into()),
            Step::Limit(concurrency) => {
                self.concurrency = concurrency;
                self.service.set_policy(policy(concurrency));
            }
            _ => {}
        }
        self.grant_all();
        self.check();
    }

    fn check(&self) {
        let mut counts: HashMap<TargetKey, u32> = HashMap::new();
        for (_, key) in &self.placed {
            *counts.entry(*key).or_default() += 1;
        }
        for (key, count) in &counts {
            assert_eq!(*count, self.service.in_flight(*key), "in flight is what was placed");
        }
        assert_eq!(self.waiting.len(), self.service.waiting());
        assert_eq!(self.serving.len(), self.service.serving());
        let free = |key: &&TargetKey| self.concurrency.is_none_or(|limit| self.service.in_flight(**key) < limit);
        let holds_out = |ticket: &Ticket| {
            self.own.get(ticket).is_some_and(|(own, since)| {
                self.serving.contains(own) && self.now - *since < Duration::from_millis(100) && !free(&own)
            })
        };
        if self.waiting.iter().all(holds_out) {
            return;
        }
        for key in self.serving.iter().filter(free) {
            assert!(self.refused.contains_key(key), "a request waits beside a free place");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_sequence_keeps_the_rules(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::new();

        for step in &steps {
            world.apply(step);
        }
    }

    #[test]
    fn whatever_becomes_of_requests_it_goes_on(
        limit in 0u32..4, hold in any::<bool>(), steps in prop::collection::vec((0u8..10, any::<usize>(), 0u64..4000), 1..300),
    ) {
        let concurrency = match limit {
            0 => Concurrency::Auto,
            3 => Concurrency::Unlimited,
            limit => Concurrency::Limit(limit),
        };
        let mut service = Service::new(Policy { concurrency, hold, ..Policy::default() }, 7);
        let mut now = Time::from_secs(1);
        let mut targets: Vec<_> = (0..3).map(|_| service.add(INFO, now)).collect();
        let mut placed: Vec<TargetKey> = Vec::new();
        let mut waiting = HashSet::new();
        for (kind, at, ms) in steps {
            let span = Time::from_millis(ms);
            match (kind, placed.is_empty()) {
                (0..=2, _) => {
                    let (ticket, own) = (service.ticket(), targets.get(at % 5).copied());
                    let ask = Ask {
                        ticket, avoid: &targets[..at % targets.len()], own, hash: None, is_again: false,
                        class: Class::Normal, deadline: now + span, bytes: 1,
                    };
                    match service.seek(&ask, now) {
                        Sought::Placed(key) => placed.push(key),
                        Sought::Waiting => drop(waiting.insert(ticket)),
                        Sought::Refused(_) => {}
                    }
                }
                (3..=6, false) => {
                    let key = placed.swap_remove(at % placed.len());
                    let outcome = [
                        Outcome::Ok { took: span, among: 1 },
                        Outcome::Abandoned { after: span },
                        Outcome::Failed(Failure::Timeout),
                        Outcome::Busy { retry_after: span },
                    ][usize::from(kind - 3)];
                    service.begun(key, now);
                    service.finished(key, true, &outcome, now);
                }
                (7, false) => {
                    let key = placed.swap_remove(at % placed.len());
                    service.finished(key, false, &Outcome::Abandoned { after: span }, now);
                }
                (8, _) => {
                    service.remove(targets.swap_remove(at % targets.len()));
                    targets.push(service.add(INFO, now));
                }
                _ => now += span,
            }
            placed.extend(service.seek_idle(&targets[..1], now));
            while let Some(next) = service.next(now) {
                let (Next::Granted(ticket, _) | Next::Shed(ticket, _)) = next;
                prop_assert!(waiting.remove(&ticket), "one that waits is answered, once");
                placed.extend(if let Next::Granted(_, key) = next { Some(key) } else { None });
            }
            let wake = service.wake_at(now);
            prop_assert_eq!(waiting.len(), service.waiting());
            // Nothing is put off for longer than an ejected target is, 5 s and a fifth.
            prop_assert!(wake.is_none_or(|at| now <= at && at <= now + Time::from_secs(6)), "{:?} at {:?}", wake, now);
        }
    }

    #[test]
    fn once_targets_answer_every_waiting_request_is_placed(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::new();
        for step in &steps {
            world.apply(step);
        }
        world.apply(&Step::Limit(Some(1)));
        world.serving.push(world.service.add(INFO, world.now));
        world.grant_all();

        let mut rounds = 0;
        while !(world.waiting.is_empty() && world.placed.is_empty()) {
            if world.placed.is_empty() {
                world.now = world.service.wake_at(world.now).expect("time or a release must help those who wait");
                world.apply(&Step::Pass(0));
            } else {
                world.apply(&Step::Finish(0));
            }
            rounds += 1;
            prop_assert!(rounds < 10_000, "all requests are answered");
        }
    }
}

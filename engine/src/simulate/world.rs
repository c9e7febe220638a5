//! Time passes from event to event: requests come, are tried, end, are tried again or hedged, and go away.
//!
//! Around dispatch it does what the gateway does (`proxy/`): budgets, backoff, hedges, deadlines. Two things
//! are simpler than life: sending takes no time, and a try that is given up ends at the instance at once.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use slab::Slab;

use super::chance::Chance;
use super::instance::Instance;
use super::parts::{Dispatcher, Ending, Event, Name, Request, Try};
use super::report::{Report, Samples};
use super::scenario::{Scenario, ms};
use crate::dispatch::{Ask, Class, Failure, Next, Outcome, Policy, Service, Sought, TargetKey, Time, backoff};

/// When nobody waits any more, for those who wait for ever.
const NEVER: Time = Time::from_secs(1 << 40);
/// The gateway's own defaults.
const RETRY_SHARE: f64 = 0.2;
const RETRY_FLOOR_PER_S: f64 = 10.0;
const BACKOFF_FIRST: Time = Time::from_millis(25);
const BACKOFF_MAX: Time = Time::from_millis(250);
/// How often at most an idle place for a hedge is looked for while there is none; also `proxy/hedge.rs`.
const LOOK_EACH_MIN: Time = Time::from_millis(5);
/// A run with more events than this for each request does not end.
const EVENTS_MAX_EACH: usize = 1000;

pub struct World<'a> {
    scenario: &'a Scenario,
    now: Time,
    /// By time, then by order of making.
    events: BinaryHeap<Reverse<(Time, u64, Event)>>,
    made: u64,
    chance: Chance,
    instances: Vec<Instance>,
    dispatchers: Vec<Dispatcher>,
    requests: Slab<Request>,
    tries: Slab<Try>,
    serial: u64,
    arrived: usize,
    measured_from: Time,
    last_arrival: Time,
    good_by_last_arrival: usize,
    report: Report,
    latencies: Samples,
    waits: Samples,
}

impl<'a> World<'a> {
    pub fn new(scenario: &'a Scenario) -> Self {
        let mut chance = Chance::new(scenario.seed);
        let groups = scenario.instances.iter().flat_map(|group| std::iter::repeat_n(group, group.count));
        let instances: Vec<_> = groups.map(|group| Instance::new(group.clone(), chance.bits())).collect();
        let policy = Policy {
            concurrency: scenario.concurrency.into(),
            balance: scenario.balance.into(),
            hold: scenario.hold,
            queue_max: scenario.queue_max,
            eject: scenario.eject,
            ..Policy::default()
        };
        let dispatchers = (0..scenario.dispatchers)
            .map(|_| Dispatcher::new(Service::new(policy, chance.bits()), instances.len()))
            .collect();
        Self {
            scenario,
            now: Time::ZERO,
            events: BinaryHeap::new(),
            made: 0,
            chance,
            instances,
            dispatchers,
            requests: Slab::new(),
            tries: Slab::new(),
            serial: 0,
            arrived: 0,
            measured_from: Time::ZERO,
            last_arrival: Time::ZERO,
            good_by_last_arrival: 0,
            report: Report::default(),
            latencies: Samples::default(),
            waits: Samples::default(),
        }
    }

    /// Lets all requests come and end.
    pub fn run(mut self) -> Result<Report, String> {
        self.at(Time::ZERO, Event::Arrive);
        let mut left = self.scenario.requests.saturating_mul(EVENTS_MAX_EACH).saturating_add(1_000_000);
        while let Some(Reverse((at, _, event))) = self.events.pop() {
            self.now = at;
            left -= 1;
            if left == 0 {
                return Err(format!("{} requests have not ended; a deadline would end them", self.requests.len()));
            }
            self.apply(event);
        }
        if !self.requests.is_empty() {
            return Err(format!("{} requests wait for ever; a deadline would end them", self.requests.len()));
        }
        Ok(self.sum_up())
    }

    fn sum_up(mut self) -> Report {
        let seconds = self.last_arrival.saturating_sub(self.measured_from).as_secs_f64();
        if seconds > 0.0 {
            self.report.goodput = self.good_by_last_arrival as f64 / seconds / self.scenario.capacity();
        }
        self.report.waited = self.waits.above_zero();
        self.report.latency_ms = self.latencies.sum_up();
        self.report.wait_ms = self.waits.sum_up();
        self.report.tries = self.instances.iter().map(|instance| instance.tries).collect();
        self.report
    }

    fn at(&mut self, at: Time, event: Event) {
        self.made += 1;
        self.events.push(Reverse((at, self.made, event)));
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Arrive => self.arrive(),
            Event::End { index, serial, well } => {
                if self.tries.get(index).is_some_and(|found| found.serial == serial) {
                    self.end(index, well);
                }
            }
            Event::Again(name) if self.is_there(name) => self.seek(name.index, true),
            Event::Hedge(name, pause) if self.is_there(name) => self.hedge(name, pause),
            Event::Leave(name) if self.is_there(name) => self.finish(name.index, &Ending::Late),
            Event::Wake(dispatcher) => {
                self.dispatchers[dispatcher].wake = None;
                self.grant(dispatcher);
            }
            Event::Again(_) | Event::Hedge(..) | Event::Leave(_) => {}
        }
    }

    fn is_there(&self, name: Name) -> bool {
        self.requests.get(name.index).is_some_and(|request| request.number == name.number)
    }

    fn arrive(&mut self) {
        let number = self.arrived;
        self.arrived += 1;
        if self.arrived < self.scenario.requests {
            let rate = self.scenario.utilisation * self.scenario.capacity();
            let gap = Time::from_secs_f64(self.chance.gap() / rate);
            self.at(self.now + gap, Event::Arrive);
        }
        if number == self.scenario.warm_up {
            self.measured_from = self.now;
        }
        self.last_arrival = self.now;
        let dispatcher = self.chance.below(self.dispatchers.len());
        let own = &mut self.dispatchers[dispatcher];
        own.retries.deposit(self.now);
        own.hedges.deposit(self.now);
        let deadline = self.scenario.deadline_ms.map(|after| self.now + ms(after));
        let index = self.requests.insert(Request {
            number,
            arrived: self.now,
            deadline: deadline.unwrap_or(NEVER),
            dispatcher,
            ticket: own.service.ticket(),
            waits: false,
            avoid: Vec::new(),
            tries: Vec::new(),
            placed: 0,
            has_begun: false,
        });
        if let Some(deadline) = deadline {
            self.at(deadline, Event::Leave(Name { index, number }));
        }
        self.seek(index, false);
    }

    fn seek(&mut self, index: usize, is_again: bool) {
        let request = &mut self.requests[index];
        let own = &mut self.dispatchers[request.dispatcher];
        let (ticket, deadline) = (request.ticket, request.deadline);
        let avoid = &request.avoid;
        let ask = Ask { ticket, avoid, own: None, hash: None, is_again, class: Class::Normal, deadline, bytes: 0 };
        match own.service.seek(&ask, self.now) {
            Sought::Placed(key) => self.place(index, key),
            Sought::Waiting => {
                request.waits = true;
                own.waiting.insert(ticket, index);
                self.wake(self.requests[index].dispatcher);
            }
            Sought::Refused(_) => self.finish(index, &Ending::Refused),
        }
    }

    /// A request goes to an instance, where it begins or waits.
    fn place(&mut self, index: usize, key: TargetKey) {
        let request = &mut self.requests[index];
        let own = &mut self.dispatchers[request.dispatcher];
        own.service.connected(key);
        let (instance, among) = (own.instances[&key], own.service.in_flight(key));
        self.serial += 1;
        let found = self.tries.insert(Try {
            serial: self.serial,
            request: index,
            instance,
            key,
            placed_at: self.now,
            among,
            is_begun: false,
        });
        request.waits = false;
        request.tries.push(found);
        request.placed += 1;
        let hedge = (request.placed == 1 && self.scenario.hedge.is_some()).then(|| own.service.hedge_after()).flatten();
        let name = Name { index, number: request.number };
        self.instances[instance].tries += 1;
        self.instances[instance].local.push_back(found);
        self.begin_next(instance);
        if let Some(after) = hedge {
            self.at(self.now + after, Event::Hedge(name, (after / 4).max(LOOK_EACH_MIN)));
        }
    }

    fn begin_next(&mut self, instance: usize) {
        while self.instances[instance].has_place() {
            let Some(index) = self.instances[instance].local.pop_front() else { return };
            let (at, well) = self.instances[instance].begin(self.scenario.service, self.scenario.mean_ms, self.now);
            let begun = &mut self.tries[index];
            begun.is_begun = true;
            let (serial, request) = (begun.serial, &mut self.requests[begun.request]);
            if !std::mem::replace(&mut request.has_begun, true) && request.number >= self.scenario.warm_up {
                self.waits.add(self.now - request.arrived);
            }
            self.at(at, Event::End { index, serial, well });
        }
    }

    fn end(&mut self, index: usize, well: bool) {
        let took = self.now - self.tries[index].placed_at;
        let outcome =
            if well { Outcome::Ok { took, among: self.tries[index].among } } else { Outcome::Failed(Failure::Status) };
        let request = self.tries[index].request;
        let key = self.tries[index].key;
        self.give_back(index, &outcome, true);
        if well {
            self.finish(request, &Ending::Good);
            return;
        }
        let found = &mut self.requests[request];
        found.avoid.push(key);
        if !found.tries.is_empty() {
            return;
        }
        let (placed, name) = (found.placed, Name { index: request, number: found.number });
        let own = &mut self.dispatchers[found.dispatcher];
        if placed > self.scenario.retries || !own.retries.withdraw(RETRY_SHARE, RETRY_FLOOR_PER_S, self.now) {
            self.finish(request, &Ending::Failed);
            return;
        }
        self.report.retries += 1;
        let pause = backoff(placed, BACKOFF_FIRST, BACKOFF_MAX, self.chance.unit());
        self.at(self.now + pause, Event::Again(name));
    }

    fn hedge(&mut self, name: Name, pause: Time) {
        let Some(share) = self.scenario.hedge else { return };
        let request = &self.requests[name.index];
        let &[first] = request.tries.as_slice() else { return };
        let avoid = [self.tries[first].key];
        let own = &mut self.dispatchers[request.dispatcher];
        if own.hedges.withdraw(share, 0.0, self.now) {
            if let Some(key) = own.service.seek_idle(&avoid, self.now) {
                self.report.hedges += 1;
                self.place(name.index, key);
                return;
            }
            own.hedges.give_back(self.now);
        }
        self.at(self.now + pause, Event::Hedge(name, pause));
    }

    /// A try is over: its places at the instance and in dispatch are free.
    fn give_back(&mut self, index: usize, outcome: &Outcome, has_answered: bool) {
        let over = self.tries.remove(index);
        self.requests[over.request].tries.retain(|own| *own != index);
        let dispatcher = self.requests[over.request].dispatcher;
        let instance = &mut self.instances[over.instance];
        if over.is_begun {
            instance.busy -= 1;
        } else {
            instance.local.retain(|waiting| *waiting != index);
        }
        let service = &mut self.dispatchers[dispatcher].service;
        if has_answered {
            service.begun(over.key, self.now);
        }
        service.finished(over.key, has_answered, outcome, self.now);
        self.begin_next(over.instance);
        self.grant(dispatcher);
    }

    /// A request is over for its client; what is still tried is given up.
    fn finish(&mut self, index: usize, ending: &Ending) {
        let request = &self.requests[index];
        let (number, arrived, ticket) = (request.number, request.arrived, request.ticket);
        let own = &mut self.dispatchers[request.dispatcher];
        if request.waits {
            own.service.cancel(Class::Normal, ticket);
            own.waiting.remove(&ticket);
        }
        while let Some(&given_up) = self.requests[index].tries.last() {
            let after = self.now - self.tries[given_up].placed_at;
            self.give_back(given_up, &Outcome::Abandoned { after }, false);
        }
        self.requests.remove(index);
        if matches!(ending, Ending::Good) && self.now >= self.measured_from && self.arrived > self.scenario.warm_up {
            self.good_by_last_arrival += usize::from(self.arrived < self.scenario.requests);
        }
        if number < self.scenario.warm_up {
            return;
        }
        self.report.requests += 1;
        let count = match ending {
            Ending::Good => {
                self.latencies.add(self.now - arrived);
                &mut self.report.good
            }
            Ending::Late => &mut self.report.late,
            Ending::Refused => &mut self.report.refused,
            Ending::Shed => &mut self.report.shed,
            Ending::Failed => &mut self.report.failed,
        };
        *count += 1;
    }

    /// Hands out what the queue is owed.
    fn grant(&mut self, dispatcher: usize) {
        while let Some(next) = self.dispatchers[dispatcher].service.next(self.now) {
            let (Next::Granted(ticket, _) | Next::Shed(ticket, _)) = next;
            let Some(index) = self.dispatchers[dispatcher].waiting.remove(&ticket) else { continue };
            self.requests[index].waits = false;
            match next {
                Next::Granted(_, key) => self.place(index, key),
                Next::Shed(..) => self.finish(index, &Ending::Shed),
            }
        }
        self.wake(dispatcher);
    }

    fn wake(&mut self, dispatcher: usize) {
        let own = &mut self.dispatchers[dispatcher];
        if let Some(at) = own.service.wake_at(self.now)
            && own.wake.is_none_or(|planned| at < planned)
        {
            own.wake = Some(at);
            self.at(at, Event::Wake(dispatcher));
        }
    }
}

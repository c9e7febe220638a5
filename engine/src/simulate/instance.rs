//! An instance: so many requests at a time, the rest in the order in which they came, at its speed, with its faults.

use std::collections::VecDeque;

use super::chance::Chance;
use super::scenario::{Group, Work, ms};
use crate::dispatch::Time;

/// What has come to an instance and has not ended.
#[derive(Debug)]
pub struct Instance {
    group: Group,
    pub busy: u32,
    /// Tries that wait here.
    pub local: VecDeque<usize>,
    /// Stops that are not over, in order; the last may be in the future.
    stops: VecDeque<(Time, Time)>,
    chance: Chance,
    /// Tries that came.
    pub tries: u64,
}

impl Instance {
    pub fn new(group: Group, seed: u64) -> Self {
        let freeze = group.freeze.map(|freeze| (ms(freeze.at_ms), ms(freeze.at_ms) + ms(freeze.for_ms)));
        let mut instance = Self {
            group,
            busy: 0,
            local: VecDeque::new(),
            stops: freeze.into_iter().collect(),
            chance: Chance::new(seed),
            tries: 0,
        };
        instance.draw_stop(Time::ZERO);
        instance
    }

    pub fn has_place(&self) -> bool {
        self.busy < self.group.places
    }

    /// Draws the work of a try that begins now: when it ends, and whether well.
    pub fn begin(&mut self, work: Work, mean_ms: f64, now: Time) -> (Time, bool) {
        self.busy += 1;
        let drawn = ms(self.chance.work(work) * mean_ms / self.group.speed);
        match self.group.fails {
            Some(fails) if self.chance.unit() <= fails.share => (self.ends_at(ms(fails.after_ms), now), false),
            _ => (self.ends_at(drawn, now), true),
        }
    }

    /// When work that begins now ends: nothing is done while the instance is stopped.
    fn ends_at(&mut self, mut work: Time, now: Time) -> Time {
        while self.stops.front().is_some_and(|stop| stop.1 <= now) {
            let (_, over) = self.stops.pop_front().unwrap_or_default();
            if self.stops.is_empty() {
                self.draw_stop(over);
            }
        }
        let mut at = now;
        let mut index = 0;
        while let Some(&(from, to)) = self.stops.get(index) {
            let until = from.saturating_sub(at);
            if work <= until {
                break;
            }
            work -= until;
            at = at.max(to);
            index += 1;
            if index == self.stops.len() {
                self.draw_stop(to);
            }
        }
        at + work
    }

    fn draw_stop(&mut self, after: Time) {
        if let Some(pauses) = self.group.pauses {
            let from = after + ms(self.chance.gap() * pauses.every_ms);
            self.stops.push_back((from, from + ms(pauses.for_ms)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::scenario::Freeze;

    #[test]
    fn work_stands_still_while_an_instance_is_frozen() {
        let freeze = Some(Freeze { at_ms: 10.0, for_ms: 100.0 });
        let group = Group { count: 1, places: 1, speed: 2.0, pauses: None, freeze, fails: None };
        let mut instance = Instance::new(group, 1);

        let ends = [0.0, 9.0, 50.0, 110.0].map(|at| instance.begin(Work::Constant {}, 10.0, ms(at)).0.as_millis());

        assert_eq!(ends, [5, 114, 115, 115]);
    }
}

//! How many further tries there may be: a share of the requests of the last ten seconds and a floor, as in
//! Finagle's `RetryBudget` and tower's `TpsBudget`; and how long the pause before one is.

use super::Time;

/// What the share is of.
const WINDOW: Time = Time::from_secs(10);
const SLOTS: u64 = 10;

/// Tries in a sliding window never exceed `share` of the window's requests and `floor` for each of its seconds.
#[derive(Debug)]
pub struct Budget {
    /// Requests and tries by second; the index is the second modulo the number of slots.
    slots: [(f64, f64); SLOTS as usize],
    /// The second that is counted in now.
    second: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self { slots: [(0.0, 0.0); SLOTS as usize], second: 0 }
    }
}

impl Budget {
    /// A request has come in.
    pub fn deposit(&mut self, now: Time) {
        self.slot(now).0 += 1.0;
    }

    /// Takes one try out if there is one: `share` from 0 to 1 for each request, `floor_per_s` in any case.
    pub fn withdraw(&mut self, share: f64, floor_per_s: f64, now: Time) -> bool {
        self.slot(now);
        let (requests, tries) =
            self.slots.iter().fold((0.0, 0.0), |(requests, tries), slot| (requests + slot.0, tries + slot.1));
        let allowed = tries + 1.0 <= share * requests + floor_per_s * WINDOW.as_secs_f64();
        if allowed {
            self.slot(now).1 += 1.0;
        }
        allowed
    }

    /// A try that was taken out was not made.
    pub fn give_back(&mut self, now: Time) {
        let slot = self.slot(now);
        slot.1 = (slot.1 - 1.0).max(0.0);
    }

    fn slot(&mut self, now: Time) -> &mut (f64, f64) {
        let second = now.as_secs();
        for passed in self.second + 1..=second.min(self.second + SLOTS) {
            self.slots[(passed % SLOTS) as usize] = (0.0, 0.0);
        }
        if second > self.second + SLOTS {
            self.slots = Self::default().slots;
        }
        self.second = self.second.max(second);
        &mut self.slots[(self.second % SLOTS) as usize]
    }
}

/// The pause before the `number`th further try, from 1 on: up to `first`, doubling up to `most`, of which
/// `chance` (0 to 1) is taken. "Full jitter": tries that failed together do not come back together.
pub fn backoff(number: u32, first: Time, most: Time, chance: f64) -> Time {
    let doublings = number.saturating_sub(1).min(20);
    first.saturating_mul(1 << doublings).min(most).mul_f64(chance.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn withdrawn(budget: &mut Budget, share: f64, floor: f64, now: Time) -> usize {
        (0..10_000).take_while(|_| budget.withdraw(share, floor, now)).count()
    }

    #[test]
    fn a_share_of_the_requests_and_a_floor_may_be_tried_again() {
        let mut budget = Budget::default();
        for _ in 0..1000 {
            budget.deposit(Time::from_secs(3));
        }

        assert_eq!(withdrawn(&mut budget, 0.2, 1.0, Time::from_secs(4)), 210);
        assert_eq!(withdrawn(&mut budget, 0.2, 1.0, Time::from_secs(5)), 0);
    }

    #[test]
    fn what_is_older_than_ten_seconds_counts_no_more() {
        let mut budget = Budget::default();
        budget.deposit(Time::from_secs(1));
        withdrawn(&mut budget, 0.0, 1.0, Time::from_secs(1));

        let (before, after) = (
            withdrawn(&mut budget, 0.0, 1.0, Time::from_secs(10)),
            withdrawn(&mut budget, 0.0, 1.0, Time::from_secs(11)),
        );

        assert_eq!((before, after, withdrawn(&mut budget, 0.0, 1.0, Time::from_secs(1000))), (0, 10, 10));
    }

    #[test]
    fn over_any_minute_tries_keep_to_the_budget() {
        let mut budget = Budget::default();
        let mut tries = 0;
        for second in 0..60 {
            for _ in 0..100 {
                budget.deposit(Time::from_secs(second));
                tries += usize::from(budget.withdraw(0.2, 10.0, Time::from_secs(second)));
            }
        }

        assert!(tries <= 6000 / 5 + 10 * 70, "{tries}");
    }

    #[test]
    fn pauses_double_to_a_bound() {
        let (first, most) = (Time::from_millis(25), Time::from_millis(250));
        let pauses = [1, 2, 3, 4, 5, 99].map(|number| backoff(number, first, most, 1.0).as_millis());

        assert_eq!(pauses, [25, 50, 100, 200, 250, 250]);
        assert_eq!(backoff(3, first, most, 0.5).as_millis(), 50);
    }
}

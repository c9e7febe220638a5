//! `concurrency: auto`: how many requests at a time do a target good, learned from how long they take.
//!
//! The measure is Kleinrock's power, throughput over time in the system ("Power and deterministic rules of
//! thumb for probabilistic problems in computer communications", ICC 1979). With `n` requests in flight that
//! take `t(n)` each, throughput is `n / t(n)` (Little), and power `n / t(n)^2`. For a target that works on `c`
//! requests in parallel and lets others wait, `t` is flat up to `c` and rises with `n` from there: power has its
//! peak at `c`. For one that shares a single processor, threads or not, the peak is at 1. What `t(n)` is, is
//! measured as it happens, since dispatch knows how many were in flight when it sent each request.

use super::Time;

/// Limits are from 1 to here.
pub const LIMIT_MAX: u32 = 256;
/// The limit before anything is known.
const START: u32 = 4;
/// Requests at a level from which on its mean counts.
const SAMPLES_MIN: u32 = 20;
/// A level's mean is a plain one up to here, then one that forgets.
const SAMPLES_MAX: u32 = 200;
/// After so many requests one level more is tried again.
const TRY_EACH: u32 = 500;
/// A level is as good as the peak from this share of its power on, and the highest such level is taken: one too
/// many waits a moment at the target, one too few leaves the target idle. Times are noisy besides.
const AS_GOOD: f64 = 0.85;
/// What is left of the limit when the target says that it has too much to do.
const CUT: f64 = 0.9;

/// Means of the time that requests took, by how many were in flight when they were sent.
#[derive(Debug)]
pub struct AutoLimit {
    levels: Vec<Level>,
    /// The highest level with about the most power.
    best: u32,
    /// No limit is above it; sinks when the target is overloaded, rises slowly.
    ceiling: f64,
    /// Requests since one level more than `best` was tried.
    since_try: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Level {
    mean: f64,
    samples: u32,
}

impl Default for AutoLimit {
    fn default() -> Self {
        Self { levels: vec![Level::default(); 2], best: START, ceiling: f64::from(LIMIT_MAX), since_try: 0 }
    }
}

impl AutoLimit {
    /// Requests at a time, at least 1.
    pub fn limit(&self) -> u32 {
        let wished = if self.knows(self.best + 1) { self.best } else { self.best + 1 };
        wished.min(self.ceiling as u32).clamp(1, LIMIT_MAX)
    }

    /// A request was answered, `took` after it was sent as the `in_flight`th at that moment (1: the only one).
    pub fn answered(&mut self, took: Time, in_flight: u32) {
        let level = in_flight.clamp(1, LIMIT_MAX) as usize;
        if self.levels.len() <= level {
            self.levels.resize(level + 1, Level::default());
        }
        self.levels[level].add(took.as_secs_f64());
        self.ceiling = (self.ceiling + 1.0 / self.ceiling).min(f64::from(LIMIT_MAX));
        self.best = self.peak().unwrap_or(START);
        self.since_try += 1;
        if self.since_try >= TRY_EACH {
            self.since_try = 0;
            // What it took back then says nothing of what it takes now.
            if let Some(level) = self.levels.get_mut(self.best as usize + 1) {
                *level = Level::default();
            }
        }
    }

    /// The target said that it has too much to do, or did not answer in time.
    pub fn overloaded(&mut self) {
        self.ceiling = (self.ceiling.min(f64::from(self.best + 1)) * CUT).max(1.0);
    }

    fn knows(&self, level: u32) -> bool {
        self.levels.get(level as usize).is_some_and(|level| level.samples >= SAMPLES_MIN)
    }

    fn peak(&self) -> Option<u32> {
        let known = || (1u32..).zip(&self.levels[1..]).filter(|(_, level)| level.samples >= SAMPLES_MIN);
        let power = |(count, level): (u32, &Level)| f64::from(count) / (level.mean * level.mean);
        let most = known().map(power).max_by(f64::total_cmp)?;
        known().filter(|level| power(*level) >= AS_GOOD * most).map(|(count, _)| count).max()
    }
}

impl Level {
    fn add(&mut self, seconds: f64) {
        self.samples = (self.samples + 1).min(SAMPLES_MAX);
        self.mean += (seconds.max(1e-6) - self.mean) / f64::from(self.samples);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a target that works on `parallel` requests at a time, each `seconds` long, always at its limit.
    fn learned(parallel: u32, seconds: f64, requests: u32) -> AutoLimit {
        let mut auto = AutoLimit::default();
        run(&mut auto, parallel, seconds, requests);
        auto
    }

    fn run(auto: &mut AutoLimit, parallel: u32, seconds: f64, requests: u32) {
        for number in 0..requests {
            // In flight goes up and down below the limit, as under any real load.
            let in_flight = auto.limit() - number % auto.limit().min(3);
            let waits = f64::from(in_flight.max(parallel)) / f64::from(parallel);
            auto.answered(Time::from_secs_f64(seconds * waits), in_flight);
        }
    }

    #[test]
    fn what_works_in_parallel_is_found() {
        for parallel in [1, 2, 3, 8, 32] {
            let auto = learned(parallel, 0.01, 6000);

            assert!((parallel..=parallel + parallel / 5).contains(&auto.best), "{parallel}: {}", auto.best);
        }
    }

    #[test]
    fn one_more_is_tried_now_and_then_only() {
        let mut auto = learned(8, 0.01, 3000);
        let mut above = 0;
        for _ in 0..TRY_EACH {
            let best = auto.best;
            above += u32::from(auto.limit() > best);
            auto.answered(Time::from_micros(10_000 * u64::from(auto.limit().max(8)) / 8), auto.limit());
        }

        assert!((1..=2 * SAMPLES_MIN).contains(&above), "{above}");
    }

    #[test]
    fn a_target_that_grows_gets_more() {
        let mut auto = learned(2, 0.01, 3000);
        run(&mut auto, 4, 0.01, 6000);

        assert_eq!(auto.best, 4);
    }

    #[test]
    fn a_target_that_shrinks_gets_fewer() {
        let mut auto = learned(8, 0.01, 3000);
        run(&mut auto, 2, 0.01, 6000);

        assert_eq!(auto.best, 2);
    }

    #[test]
    fn back_pressure_lowers_the_limit_and_answers_raise_it_again() {
        let mut auto = learned(8, 0.01, 3000);
        for _ in 0..20 {
            auto.overloaded();
        }
        let low = auto.limit();
        run(&mut auto, 8, 0.01, 600);

        assert_eq!((low, auto.limit() >= 8), (1, true));
    }

    #[test]
    fn the_limit_is_bounded() {
        let auto = learned(100_000, 0.01, 40_000);

        assert_eq!(auto.limit(), LIMIT_MAX);
    }
}

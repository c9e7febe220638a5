//! How long requests take: of one target as a slowly moving geometric mean, of the whole service as a histogram
//! that forgets. Only requests that were answered count.

use super::Time;

/// Weight of the newest request in a target's mean.
const ALPHA: f64 = 0.03;
/// Samples over which the first mean is a plain one.
const PLAIN: f64 = 1.0 / ALPHA;
/// Samples after which quantiles say something.
const SAMPLES_MIN: u64 = 20;
/// Bounds of buckets rise by this factor, from `FIRST` on: quantiles are right within 10 %.
const STEP: f64 = 1.1;
const FIRST_SECONDS: f64 = 1e-5;
const BUCKETS: usize = 200;
/// When so many samples are in, all counts are halved: half of what is known is as old as that.
const HALVE_AT: u64 = 4096;

/// A target's expected time for one request.
#[derive(Debug, Default)]
pub struct Speed {
    ln_mean: f64,
    samples: f64,
    /// Of `ln_mean`, kept since it is asked for far more often than it changes.
    seconds: f64,
}

impl Speed {
    /// A request took so long. The logarithm keeps a rare long one from hiding what most take.
    pub fn add(&mut self, took: Time) {
        self.samples += 1.0;
        let weight = ALPHA.max(1.0 / self.samples.min(PLAIN));
        let ln = took.as_secs_f64().max(1e-6).ln();
        self.ln_mean += (ln - self.ln_mean) * weight;
        self.seconds = self.ln_mean.exp();
    }

    /// A request would have taken longer than this.
    pub fn at_least(&mut self, after: Time) {
        if self.seconds().is_some_and(|mean| after.as_secs_f64() > mean) {
            self.add(after);
        }
    }

    /// The geometric mean in seconds; `None`: nothing is known yet.
    pub fn seconds(&self) -> Option<f64> {
        (self.samples > 0.0).then_some(self.seconds)
    }
}

/// After so long without requests, a peak has sunk to 1/e.
const PEAK_DECAY_SECONDS: f64 = 10.0;
/// What a target is thought to take of which nothing is known: enough to be left alone while it has requests.
const UNKNOWN_SECONDS: f64 = 1.0;

/// A target's latency as Finagle's peak EWMA has it: a longer one counts at once, a shorter one by and by.
#[derive(Debug, Default)]
pub struct Peak {
    seconds: Option<f64>,
    at: Time,
}

impl Peak {
    /// A request took so long.
    pub fn add(&mut self, took: Time, now: Time) {
        let (took, before) = (took.as_secs_f64(), self.seconds.unwrap_or(0.0));
        let kept = (-now.saturating_sub(self.at).as_secs_f64() / PEAK_DECAY_SECONDS).exp();
        self.seconds = Some(if took > before { took } else { before * kept + took * (1.0 - kept) });
        self.at = now;
    }

    /// What it comes to now: without new requests it decays.
    pub fn seconds(&self, now: Time) -> f64 {
        let kept = (-now.saturating_sub(self.at).as_secs_f64() / PEAK_DECAY_SECONDS).exp();
        self.seconds.map_or(UNKNOWN_SECONDS, |seconds| seconds * kept)
    }
}

/// The times of a service's requests.
#[derive(Debug)]
pub struct Times {
    buckets: Vec<u32>,
    count: u64,
    since_halved: u64,
    mean: f64,
}

impl Default for Times {
    fn default() -> Self {
        Self { buckets: vec![0; BUCKETS], count: 0, since_halved: 0, mean: 0.0 }
    }
}

impl Times {
    /// A request took so long.
    pub fn add(&mut self, took: Time) {
        let seconds = took.as_secs_f64();
        let index = ((seconds / FIRST_SECONDS).max(1.0).ln() / STEP.ln()) as usize;
        self.buckets[index.min(BUCKETS - 1)] += 1;
        self.count += 1;
        self.since_halved += 1;
        self.mean += (seconds - self.mean) * (1.0 / self.since_halved.min(200) as f64).max(0.005);
        if self.count >= HALVE_AT {
            self.buckets.iter_mut().for_each(|bucket| *bucket /= 2);
            self.count = self.buckets.iter().map(|bucket| u64::from(*bucket)).sum();
        }
    }

    /// The time that the share `q` (0 to 1) of requests keeps to, within 10 %; `None`: too little is known.
    pub fn quantile(&self, q: f64) -> Option<Time> {
        if self.count < SAMPLES_MIN {
            return None;
        }
        let wanted = (q * self.count as f64).ceil() as u64;
        let mut seen = 0;
        let found = self.buckets.iter().position(|bucket| {
            seen += u64::from(*bucket);
            seen >= wanted
        });
        let exponent = i32::try_from(found.unwrap_or(BUCKETS - 1) + 1).unwrap_or(i32::MAX);
        Some(Time::from_secs_f64(FIRST_SECONDS * STEP.powi(exponent)))
    }

    /// The mean in seconds; `None`: too little is known.
    pub fn mean(&self) -> Option<f64> {
        (self.count >= SAMPLES_MIN).then_some(self.mean)
    }
}

/// Samples after which it is worked out anew what they come to.
const KNOWN_AGE_MAX: u32 = 64;

/// What a service's times come to, brought up to date now and then; `None`: too little is known.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known {
    /// The median.
    pub p50: Option<Time>,
    /// The 99th percentile.
    pub p99: Option<Time>,
    /// In seconds.
    pub mean: Option<f64>,
    /// Samples since this was worked out.
    age: u32,
}

impl Known {
    /// A time was added to `times`; what they come to is worked out after so many of them.
    pub fn follow(&mut self, times: &Times) {
        self.age += 1;
        if self.age >= KNOWN_AGE_MAX || self.p50.is_none() {
            *self = Self { p50: times.quantile(0.5), p99: times.quantile(0.99), mean: times.mean(), age: 0 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_right_within_a_tenth() {
        let mut times = Times::default();
        for ms in 1..=1000 {
            times.add(Time::from_millis(ms));
        }

        let (p50, p99) = (times.quantile(0.5).unwrap().as_millis(), times.quantile(0.99).unwrap().as_millis());

        assert!((500..=550).contains(&p50) && (990..=1090).contains(&p99), "{p50} {p99}");
    }

    #[test]
    fn little_is_said_of_little() {
        let mut times = Times::default();
        for _ in 0..19 {
            times.add(Time::from_millis(1));
        }

        assert_eq!((times.quantile(0.5), times.mean()), (None, None));
    }

    #[test]
    fn a_rare_long_request_hardly_moves_the_speed() {
        let mut speed = Speed::default();
        for number in 0..200 {
            speed.add(Time::from_millis(if number % 50 == 49 { 1000 } else { 10 }));
        }

        assert!((0.009..0.016).contains(&speed.seconds().unwrap()), "{speed:?}");
    }
}

//! What a run comes to.

use serde::Serialize;

use crate::dispatch::Time;

/// Counts and times of the requests after the warm-up.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub requests: usize,
    /// Answered well and in time.
    pub good: usize,
    /// Nobody waited for it any more.
    pub late: usize,
    /// Not taken in: the queue was full, or it could not have been in time.
    pub refused: usize,
    /// Taken in and sent away later.
    pub shed: usize,
    /// Failed at the last instance that it was tried on.
    pub failed: usize,
    pub retries: u64,
    pub hedges: u64,
    /// Good answers per second over the capacity per second, from the first arrival to the last.
    pub goodput: f64,
    /// Of good answers.
    pub latency_ms: Times,
    /// Arrival to the beginning of work on the first try.
    pub wait_ms: Times,
    /// Share of requests that waited.
    pub waited: f64,
    /// Tries that came to each instance, in the order of the scenario, with those of the warm-up.
    pub tries: Vec<u64>,
}

#[derive(Debug, Default, Serialize)]
pub struct Times {
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p99_9: f64,
    pub max: f64,
}

/// Times of requests, in milliseconds.
#[derive(Debug, Default)]
pub struct Samples(Vec<f64>);

impl Samples {
    pub fn add(&mut self, span: Time) {
        self.0.push(span.as_secs_f64() * 1000.0);
    }

    /// Share of them above zero.
    pub fn above_zero(&self) -> f64 {
        self.0.iter().filter(|sample| **sample > 0.0).count() as f64 / self.0.len().max(1) as f64
    }

    /// Mean and quantiles; zeros where there are none.
    pub fn sum_up(mut self) -> Times {
        self.0.sort_by(f64::total_cmp);
        let quantile = |q: f64| {
            let rank = (q * self.0.len() as f64).ceil() as usize;
            self.0.get(rank.saturating_sub(1)).copied().unwrap_or_default()
        };
        Times {
            mean: self.0.iter().sum::<f64>() / self.0.len().max(1) as f64,
            p50: quantile(0.5),
            p90: quantile(0.9),
            p99: quantile(0.99),
            p99_9: quantile(0.999),
            max: quantile(1.0),
        }
    }
}

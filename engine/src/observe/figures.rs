//! What is counted of a service's requests, for Prometheus: counts that only rise and histograms with fixed
//! bounds. One lock, held for some additions, once at the end of each request.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use crate::dispatch::{Failure, Outcome};
use crate::sync::lock;

/// Upper bounds of buckets in seconds. The last bucket, of all that is above, is not among them.
pub const BOUNDS: [f64; 16] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Durations by bucket.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    /// How many fell into each bucket; the last is for what is above all bounds.
    pub counts: [u64; BOUNDS.len() + 1],
    /// Their sum in seconds.
    pub sum: f64,
}

impl Histogram {
    /// Counts one in.
    pub fn add(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        self.counts[BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len())] += 1;
        self.sum += seconds;
    }
}

/// A request that is over, as far as it is counted.
#[derive(Clone, Copy, Debug)]
pub struct Ended<'a> {
    /// Its method; one that is not a standard one is "other".
    pub method: &'static str,
    /// The status that the client got; 499: it was gone before there was one.
    pub status: u16,
    /// The word of an answer of the gateway's own.
    pub reason: Option<&'a str>,
    /// From its head to the end of its answer.
    pub total: Duration,
    /// How long it waited for places.
    pub waited: Duration,
    /// Bytes of its body.
    pub bytes_in: u64,
    /// Bytes of its answer's body.
    pub bytes_out: u64,
}

/// All that is counted of one service.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// By method and status.
    pub requests: BTreeMap<(&'static str, u16), u64>,
    /// Answers of the gateway's own, by their reason.
    pub own_answers: BTreeMap<String, u64>,
    /// Tries by how they ended.
    pub attempts: BTreeMap<&'static str, u64>,
    /// Further tries: made, or not made for want of a budget.
    pub retries: BTreeMap<&'static str, u64>,
    /// Second tries beside a first that took long.
    pub hedges: u64,
    /// Targets put aside, by why.
    pub ejections: BTreeMap<&'static str, u64>,
    /// From head to end of the answer.
    pub durations: Histogram,
    /// In the queue.
    pub waits: Histogram,
    /// Of tries that were answered, from their place to the end.
    pub upstream: Histogram,
    /// Connections to instances that carried one more request.
    pub reused: u64,
    /// Bytes of requests' bodies.
    pub bytes_in: u64,
    /// Bytes of answers' bodies.
    pub bytes_out: u64,
}

/// The figures of one service, added to by all workers.
#[derive(Debug)]
pub struct Counted {
    /// "application/service".
    pub service: String,
    figures: Mutex<Figures>,
}

impl Counted {
    /// Nothing so far.
    pub fn new(service: &str) -> Self {
        Self { service: service.to_owned(), figures: Mutex::default() }
    }

    /// A request is over.
    pub fn ended(&self, ended: &Ended<'_>) {
        let mut figures = lock(&self.figures);
        *figures.requests.entry((ended.method, ended.status)).or_default() += 1;
        if let Some(reason) = ended.reason {
            match figures.own_answers.get_mut(reason) {
                Some(count) => *count += 1,
                None => drop(figures.own_answers.insert(reason.to_owned(), 1)),
            }
        }
        figures.durations.add(ended.total);
        figures.waits.add(ended.waited);
        figures.bytes_in += ended.bytes_in;
        figures.bytes_out += ended.bytes_out;
    }

    /// A try is over; `reused`: a kept connection carried it.
    pub fn tried(&self, outcome: &Outcome, reused: bool) {
        let word = match outcome {
            Outcome::Ok { .. } => "ok",
            Outcome::Busy { .. } => "busy",
            Outcome::Abandoned { .. } => "abandoned",
            Outcome::Failed(Failure::Connect) => "connect",
            Outcome::Failed(Failure::Reset) => "reset",
            Outcome::Failed(Failure::Timeout) => "timeout",
            Outcome::Failed(Failure::Status) => "status",
        };
        let mut figures = lock(&self.figures);
        *figures.attempts.entry(word).or_default() += 1;
        figures.reused += u64::from(reused);
        if let Outcome::Ok { took, .. } = outcome {
            figures.upstream.add(*took);
        }
    }

    /// A further try was made, or not for want of a budget.
    pub fn retried(&self, outcome: &'static str) {
        *lock(&self.figures).retries.entry(outcome).or_default() += 1;
    }

    /// A second try was made beside a first.
    pub fn hedged(&self) {
        lock(&self.figures).hedges += 1;
    }

    /// A target was put aside.
    pub fn ejected(&self, reason: &'static str) {
        *lock(&self.figures).ejections.entry(reason).or_default() += 1;
    }

    /// All figures as they are now.
    pub fn read(&self) -> Figures {
        lock(&self.figures).clone()
    }
}

//! What came of the load: counts, latencies in a histogram of three digits, failures in their order.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::time::Instant;

/// Failures kept with their time.
const SERIES_MAX: usize = 100_000;

/// Requests kept one by one.
const SAMPLES_MAX: usize = 5_000_000;

/// Longer latencies count as this one, an hour. A histogram without bounds would clamp at 2 ms instead.
const LATENCY_US_MAX: u64 = 3_600_000_000;

/// How a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// No connection.
    Connect,
    /// The connection broke.
    Reset,
    /// No complete answer in time.
    Timeout,
    /// An answer of 400 or above.
    Status(u16),
}

impl Failure {
    const fn word(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
            Self::Status(_) => "status",
        }
    }
}

/// Takes the outcome of each request.
pub struct Recorder {
    start: Instant,
    last: Instant,
    requests: u64,
    statuses: BTreeMap<u16, u64>,
    failures: BTreeMap<&'static str, u64>,
    /// Microseconds, of the requests that got an answer.
    latencies: Histogram<u64>,
    series: Option<Vec<(Duration, Failure)>>,
    samples: Option<Vec<Sample>>,
    unsent: usize,
}

/// One request: when it was to go out and how long it took, both in microseconds; its status, 0 without an answer.
#[derive(Clone, Copy)]
struct Sample {
    from: u64,
    took: u64,
    status: u16,
}

impl Recorder {
    /// Nothing yet; failures are kept one by one where `series` asks for it, all requests where `samples` does.
    pub fn new(start: Instant, series: bool, samples: bool) -> Self {
        Self {
            start,
            last: start,
            requests: 0,
            statuses: BTreeMap::new(),
            failures: BTreeMap::new(),
            latencies: Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).expect("the bounds are in order"),
            series: series.then(Vec::new),
            samples: samples.then(Vec::new),
            unsent: 0,
        }
    }

    /// A request that was to go out at `from` has ended now.
    pub fn note(&mut self, from: Instant, outcome: Result<StatusCode, Failure>) {
        self.last = Instant::now();
        self.requests += 1;
        let status = outcome.map(|status| status.as_u16());
        let latency = micros(self.last - from);
        if let Some(samples) = self.samples.as_mut().filter(|samples| samples.len() < SAMPLES_MAX) {
            samples.push(Sample { from: micros(from - self.start), took: latency, status: status.unwrap_or(0) });
        }
        if let Ok(status) = status {
            *self.statuses.entry(status).or_default() += 1;
            self.latencies.saturating_record(latency.max(1));
        }
        match status {
            Ok(status) if status >= 400 => self.fail(Failure::Status(status)),
            Ok(_) => {}
            Err(failure) => self.fail(failure),
        }
    }

    fn fail(&mut self, failure: Failure) {
        *self.failures.entry(failure.word()).or_default() += 1;
        if let Some(series) = self.series.as_mut().filter(|series| series.len() < SERIES_MAX) {
            series.push((self.last - self.start, failure));
        }
    }

    /// So many requests were due and never went out, as all connections were busy.
    pub fn note_unsent(&mut self, count: usize) {
        self.unsent = count;
    }

    /// The report.
    pub fn to_json(&self) -> String {
        let seconds = (self.last - self.start).as_secs_f64();
        let milliseconds = |micros: u64| Value::from(micros as f64 / 1000.0);
        let quantile = |q: f64| milliseconds(self.latencies.value_at_quantile(q));
        let failures: BTreeMap<&str, u64> = ["connect", "reset", "timeout", "status"]
            .into_iter()
            .map(|kind| (kind, self.failures.get(kind).copied().unwrap_or_default()))
            .collect();
        let statuses: BTreeMap<String, u64> =
            self.statuses.iter().map(|(status, count)| (status.to_string(), *count)).collect();
        let mut report = json!({
            "requests": self.requests,
            "failed": failures.values().sum::<u64>(),
            "failures": failures,
            "statuses": statuses,
            "unsent": self.unsent,
            "seconds": seconds,
            "rate": if seconds > 0.0 { self.requests as f64 / seconds } else { 0.0 },
            "latency_ms": {
                "p50": quantile(0.5),
                "p90": quantile(0.9),
                "p99": quantile(0.99),
                "p99_9": quantile(0.999),
                "max": milliseconds(self.latencies.max()),
                "mean": self.latencies.mean() / 1000.0,
            },
        });
        if let Some(series) = &self.series {
            report["series"] = series
                .iter()
                .map(|(at, failure)| {
                    let status = if let Failure::Status(status) = failure { Some(*status) } else { None };
                    json!({ "at": at.as_secs_f64(), "kind": failure.word(), "status": status })
                })
                .collect();
        }
        if let Some(samples) = &self.samples {
            report["samples"] = samples.iter().map(|sample| json!([sample.from, sample.took, sample.status])).collect();
        }
        report.to_string()
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A latency of seconds is reported as such.
    #[test]
    fn long_latencies_are_kept() {
        let now = Instant::now();
        let mut recorder = Recorder::new(now, false, false);
        recorder.note(now - Duration::from_secs(5), Ok(StatusCode::OK));

        let report: Value = serde_json::from_str(&recorder.to_json()).expect("a report is JSON");
        let p99 = report["latency_ms"]["p99"].as_f64().expect("a quantile is a number");
        assert!((4990.0..5100.0).contains(&p99), "{p99}");
    }
}

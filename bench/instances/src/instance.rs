//! One instance: places, the queue beyond them, faults, and a log of what arrived. Time comes from outside, in
//! nanoseconds since the program's start; sockets are the business of `serve`.

use std::collections::VecDeque;

/// A connection, and how often its number was used before: an answer never goes to a later one.
pub type Client = (usize, u64);

/// How requests are answered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    /// With 200 after the service time.
    Serve,
    /// With 500 after 0.1 ms.
    Fail,
    /// With 503 and Retry-After: 1, after 0.1 ms.
    Busy,
    /// Not at all: connections are refused.
    Refuse,
}

const FAULT_MS: f64 = 0.1;

/// A request in a place.
#[derive(Clone, Copy)]
pub struct Job {
    pub client: Client,
    pub status: u16,
    ends: u64,
    lost_before: u64,
}

#[derive(Default)]
pub struct Log {
    pub arrived: u64,
    pub finished: u64,
    /// Arrived and not answered, at most.
    pub peak: usize,
    pub busy_ms: f64,
    /// By how much answers were sent too late, in all: what this program and the machine add.
    pub late_ms: f64,
}

pub struct Instance {
    places: usize,
    pub speed: f64,
    pub mode: Mode,
    pub log: Log,
    serving: usize,
    waiting: VecDeque<(Client, f64)>,
    paused_until: u64,
    /// Time lost in pauses since the start: what is in a place takes so much longer.
    lost: u64,
}

impl Instance {
    pub fn new(places: usize, speed: f64) -> Self {
        Self {
            places,
            speed,
            mode: Mode::Serve,
            log: Log::default(),
            serving: 0,
            waiting: VecDeque::new(),
            paused_until: 0,
            lost: 0,
        }
    }

    /// Stops all work for `span`, as a collection of garbage does.
    pub fn pause(&mut self, now: u64, span: u64) {
        let until = now + span;
        self.lost += until.saturating_sub(self.paused_until.max(now));
        self.paused_until = self.paused_until.max(until);
    }

    /// A request arrives that takes `ms` at speed 1; the job with its end, if there is a place.
    pub fn arrive(&mut self, now: u64, client: Client, ms: f64) -> Option<(u64, Job)> {
        self.log.arrived += 1;
        self.log.peak = self.log.peak.max(self.serving + self.waiting.len() + 1);
        if self.serving == self.places {
            self.waiting.push_back((client, ms));
            return None;
        }
        Some(self.begin(now, client, ms))
    }

    fn begin(&mut self, now: u64, client: Client, ms: f64) -> (u64, Job) {
        let (status, ms) = match self.mode {
            Mode::Serve | Mode::Refuse => (200, ms * self.speed),
            Mode::Fail => (500, FAULT_MS),
            Mode::Busy => (503, FAULT_MS),
        };
        self.serving += 1;
        self.log.busy_ms += ms;
        let ends = now.max(self.paused_until) + (ms * 1e6) as u64;
        (ends, Job { client, status, ends, lost_before: self.lost })
    }

    /// When a job whose time seems over really ends: later, if there was a pause.
    pub fn end_of(&self, job: &Job) -> u64 {
        job.ends + (self.lost - job.lost_before)
    }

    /// A job is over; the next one, if a request waits for which `is_there` holds.
    pub fn finish(&mut self, now: u64, is_there: impl Fn(Client) -> bool) -> Option<(u64, Job)> {
        self.serving -= 1;
        self.log.finished += 1;
        while let Some((client, ms)) = self.waiting.pop_front() {
            if is_there(client) {
                return Some(self.begin(now, client, ms));
            }
        }
        None
    }

    /// What arrived, as JSON.
    pub fn to_json(&self) -> String {
        let Log { arrived, finished, peak, busy_ms, late_ms } = &self.log;
        format!(
            r#"{{"arrived":{arrived},"finished":{finished},"peak":{peak},"busy_ms":{busy_ms:.3},"late_ms":{late_ms:.3}}}"#
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn requests_beyond_the_places_wait_in_their_order() {
        let mut instance = Instance::new(1, 1.0);
        let (ends, _) = instance.arrive(0, (1, 0), 10.0).expect("the place is free");
        assert!(instance.arrive(0, (2, 0), 5.0).is_none());
        assert!(instance.arrive(0, (3, 0), 5.0).is_none());

        let (next, job) = instance.finish(ends, |_| true).expect("one waits");

        assert_eq!((ends, next, job.client), (10 * MS, 15 * MS, (2, 0)));
        assert_eq!(instance.log.peak, 3);
    }

    #[test]
    fn a_pause_prolongs_what_runs_and_delays_what_begins() {
        let mut instance = Instance::new(2, 1.0);
        let (_, running) = instance.arrive(0, (1, 0), 10.0).expect("a place is free");
        instance.pause(5 * MS, 200 * MS);

        let (begun, later) = instance.arrive(6 * MS, (2, 0), 10.0).expect("a place is free");

        assert_eq!(instance.end_of(&running), 210 * MS);
        assert_eq!((begun, instance.end_of(&later)), (215 * MS, 215 * MS));
    }

    #[test]
    fn who_has_gone_is_not_served() {
        let mut instance = Instance::new(1, 1.0);
        let _ = instance.arrive(0, (1, 0), 10.0);
        let _ = instance.arrive(0, (2, 0), 10.0);

        assert!(instance.finish(10 * MS, |client| client != (2, 0)).is_none());
    }
}

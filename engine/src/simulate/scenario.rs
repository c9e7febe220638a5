//! What is simulated: load, instances, faults, and what dispatch is held to. Says what is right, draws nothing.

use serde::Deserialize;

use crate::dispatch::Time;
use crate::table::policy::{Balance, Concurrency};

const INSTANCES_MAX: usize = 10_000;
const REQUESTS_MAX: usize = 10_000_000;

/// Everything that a run depends on: the same scenario gives the same report.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    #[serde(default = "one")]
    pub seed: u64,
    /// Requests that come in.
    pub requests: usize,
    /// The first so many of them are not in the report.
    #[serde(default)]
    pub warm_up: usize,
    /// Requests per second over the capacity per second.
    pub utilisation: f64,
    /// Mean time of a request on an instance of speed 1.
    pub mean_ms: f64,
    pub service: Work,
    pub instances: Vec<Group>,
    /// Gateways that share the instances and know nothing of each other.
    #[serde(default = "one_at_all")]
    pub dispatchers: usize,
    /// Requests at a time per instance that dispatch keeps to, or `"auto"`; `None`: as many as come.
    pub concurrency: Option<Concurrency>,
    /// By which of the targets with a free place one is taken.
    #[serde(default)]
    pub balance: Balance,
    /// Whether a request may wait for a much faster instance.
    #[serde(default)]
    pub hold: bool,
    /// When a client goes away; `None`: never.
    #[serde(default)]
    pub deadline_ms: Option<f64>,
    /// `None`: as the gateway has it.
    #[serde(default)]
    pub queue_max: Option<usize>,
    #[serde(default = "yes")]
    pub eject: bool,
    /// Further tries of a request, of which a budget of 20 % and 10 a second may be made.
    #[serde(default)]
    pub retries: u32,
    /// Share of requests that may be hedged; `None`: none.
    #[serde(default)]
    pub hedge: Option<f64>,
}

/// How the work of requests is distributed.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Work {
    Constant {},
    Exponential {},
    /// `cv`: standard deviation over mean.
    Lognormal {
        cv: f64,
    },
    /// `share` of the requests take `ratio` times as long as the others.
    Bimodal {
        share: f64,
        ratio: f64,
    },
}

/// Instances that are alike.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    pub count: usize,
    /// Requests that each of them works on at a time; more wait in the order in which they came.
    pub places: u32,
    #[serde(default = "full_speed")]
    pub speed: f64,
    #[serde(default)]
    pub pauses: Option<Pauses>,
    #[serde(default)]
    pub freeze: Option<Freeze>,
    #[serde(default)]
    pub fails: Option<Fails>,
}

/// An instance stops now and then and goes on where it was; the gaps between are exponential.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pauses {
    pub every_ms: f64,
    pub for_ms: f64,
}

/// An instance stops once and goes on where it was.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Freeze {
    pub at_ms: f64,
    pub for_ms: f64,
}

/// An instance answers a share of the requests with an error, after `after_ms`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fails {
    pub share: f64,
    pub after_ms: f64,
}

fn one() -> u64 {
    1
}

fn one_at_all() -> usize {
    1
}

fn full_speed() -> f64 {
    1.0
}

fn yes() -> bool {
    true
}

/// A span of so many milliseconds, which were checked.
pub fn ms(milliseconds: f64) -> Time {
    Time::from_secs_f64(milliseconds / 1000.0)
}

impl Scenario {
    /// Requests per second that the instances can answer.
    pub fn capacity(&self) -> f64 {
        let speed: f64 =
            self.instances.iter().map(|group| group.count as f64 * f64::from(group.places) * group.speed).sum();
        speed * 1000.0 / self.mean_ms
    }

    /// Instances of all groups.
    pub fn instance_count(&self) -> usize {
        self.instances.iter().map(|group| group.count).fold(0, usize::saturating_add)
    }

    /// # Errors
    /// What is out of range, and what would be right.
    pub fn check(&self) -> Result<(), String> {
        whole("requests", self.requests, REQUESTS_MAX)?;
        if self.warm_up >= self.requests {
            return Err(format!("warm_up is {}; fewer than requests, {}, would be right", self.warm_up, self.requests));
        }
        within("utilisation", self.utilisation, 1e-6, 100.0)?;
        within("mean_ms", self.mean_ms, 1e-3, 1e6)?;
        whole("dispatchers", self.dispatchers, 64)?;
        whole("the number of instances", self.instance_count(), INSTANCES_MAX)?;
        if let Some(deadline) = self.deadline_ms {
            within("deadline_ms", deadline, 1e-3, 1e9)?;
        }
        if let Some(share) = self.hedge {
            within("hedge", share, 0.0, 1.0)?;
        }
        match self.service {
            Work::Constant {} | Work::Exponential {} => {}
            Work::Lognormal { cv } => within("cv", cv, 0.0, 100.0)?,
            Work::Bimodal { share, ratio } => {
                within("share", share, 0.0, 1.0)?;
                within("ratio", ratio, 1.0, 1e6)?;
            }
        }
        self.instances.iter().try_for_each(Group::check)
    }
}

impl Group {
    fn check(&self) -> Result<(), String> {
        whole("places", self.places as usize, 100_000)?;
        within("speed", self.speed, 1e-3, 1e3)?;
        if let Some(pauses) = &self.pauses {
            within("every_ms", pauses.every_ms, 1e-3, 1e9)?;
            within("for_ms", pauses.for_ms, 0.0, 1e9)?;
        }
        if let Some(freeze) = &self.freeze {
            within("at_ms", freeze.at_ms, 0.0, 1e9)?;
            within("for_ms", freeze.for_ms, 0.0, 1e9)?;
        }
        if let Some(fails) = &self.fails {
            within("share", fails.share, 0.0, 1.0)?;
            within("after_ms", fails.after_ms, 0.0, 1e9)?;
        }
        Ok(())
    }
}

fn within(name: &str, value: f64, least: f64, most: f64) -> Result<(), String> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(format!("{name} is {value}; {least} to {most} would be right"))
}

fn whole(name: &str, value: usize, most: usize) -> Result<(), String> {
    if (1..=most).contains(&value) {
        return Ok(());
    }
    Err(format!("{name} is {value}; 1 to {most} would be right"))
}

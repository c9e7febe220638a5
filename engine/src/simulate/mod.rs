//! The service's queue in virtual time: requests, instances and faults are drawn from a seed, dispatch itself is the very
//! code that the gateway runs ([`crate::dispatch`]). No sockets, no threads, no clock.
//!
//! `scenario` says what there is, `chance` draws, `instance` serves, `world` lets time pass over its `parts`, `report`
//! sums up.

mod chance;
mod instance;
mod parts;
mod report;
mod scenario;
mod world;

#[cfg(test)]
mod tests;

use scenario::Scenario;
use world::World;

/// Plays the scenario of a JSON object; gives the report as a JSON object.
///
/// # Errors
/// The scenario is malformed or out of range, or never ends; the message says what would be right.
pub fn run(scenario: &str) -> Result<String, String> {
    let scenario: Scenario = serde_json::from_str(scenario).map_err(|error| format!("the scenario: {error}"))?;
    scenario.check()?;
    let report = World::new(&scenario).run()?;
    serde_json::to_string(&report).map_err(|error| error.to_string())
}

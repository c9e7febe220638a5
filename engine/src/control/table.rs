//! The routing table as it comes in: the shape of `src/unisono/gateway/table.py`, checked once here, so that
//! what the proxy holds is never invalid. Fields that are not known are passed over: the gateway outlives the
//! node, and a newer node's table must not be refused for a word more.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Everything the gateway follows, at one version.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Table {
    /// Only rises.
    pub version: u64,
    /// The addresses at which the gateway answers.
    #[serde(default)]
    pub listeners: Vec<Listener>,
    /// By "application/service".
    #[serde(default)]
    pub services: BTreeMap<String, Backend>,
}

/// An address at which the gateway answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Listener {
    /// IP address and port.
    pub address: SocketAddr,
    /// Which requests go where.
    #[serde(default)]
    pub rules: Vec<Rule>,
}

/// Requests whose host and path match go to `service`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Rule {
    /// A key of the table's services.
    pub service: String,
    /// A prefix, matched on segment boundaries.
    #[serde(default = "root")]
    pub path: String,
    /// A host name without port; `None`: any.
    #[serde(default)]
    pub host: Option<String>,
}

/// A service as the gateway sees it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Backend {
    /// The ready instances.
    #[serde(default)]
    pub targets: Vec<Target>,
    /// Requests at a time per target; `None`: not limited.
    #[serde(default)]
    pub concurrency: Option<u32>,
    /// Arrival of a request to the head of its answer; `None`: no limit.
    #[serde(default = "timeout_ms")]
    pub timeout_ms: Option<u64>,
    /// Longest wait for a target.
    #[serde(default = "wait_ms")]
    pub wait_ms: u64,
    /// Tries of a request that may be sent again.
    #[serde(default = "attempts")]
    pub attempts: u32,
    /// Requests waiting at once.
    #[serde(default = "queue_max")]
    pub queue_max: usize,
}

/// One ready instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The instance's name.
    pub id: String,
    /// Rises with each start of the instance.
    pub generation: u64,
    /// Where it listens.
    pub address: SocketAddr,
    /// `None`: not a process of this machine.
    #[serde(default)]
    pub pid: Option<i32>,
    /// Clock ticks since boot, field 22 of /proc/PID/stat.
    #[serde(default)]
    pub start_time: Option<u64>,
}

impl Table {
    /// Reads and checks a table.
    ///
    /// # Errors
    /// The first thing that is wrong, in words for the one who made the table.
    pub fn parse(json: &[u8]) -> Result<Self, String> {
        let table: Self = serde_json::from_slice(json).map_err(|error| format!("not a routing table: {error}"))?;
        table.check()?;
        Ok(table)
    }

    fn check(&self) -> Result<(), String> {
        let mut addresses = HashSet::new();
        for listener in &self.listeners {
            let address = listener.address;
            if address.port() == 0 {
                return Err(format!("listener {address}: a port from 1 to 65535 would be right"));
            }
            if !addresses.insert(address) {
                return Err(format!("listener {address} is there twice; once would be right"));
            }
            for rule in &listener.rules {
                rule.check().map_err(|fault| format!("listener {address}: {fault}"))?;
                if !self.services.contains_key(&rule.service) {
                    return Err(format!(
                        "listener {address}: the rule for {} names the service {:?}, which is not in the table",
                        rule.path, rule.service
                    ));
                }
            }
        }
        self.services
            .iter()
            .try_for_each(|(name, backend)| backend.check().map_err(|fault| format!("service {name}: {fault}")))
    }
}

impl Rule {
    fn check(&self) -> Result<(), String> {
        if self.path.starts_with('/') { Ok(()) } else { Err(format!("path {:?} does not begin with /", self.path)) }
    }
}

impl Backend {
    /// A service without targets, with all else as the table has it by default.
    pub fn nobody() -> Self {
        Self {
            targets: Vec::new(),
            concurrency: None,
            timeout_ms: timeout_ms(),
            wait_ms: wait_ms(),
            attempts: attempts(),
            queue_max: queue_max(),
        }
    }

    fn check(&self) -> Result<(), String> {
        if self.concurrency == Some(0) {
            return Err("concurrency is 0; 1 or more, or null for no limit, would be right".into());
        }
        if self.attempts == 0 {
            return Err("attempts is 0; 1 or more would be right".into());
        }
        let mut ids = HashSet::new();
        for target in &self.targets {
            if !ids.insert((&target.id, target.generation)) {
                return Err(format!("instance {} generation {} is there twice", target.id, target.generation));
            }
            if target.pid.is_some_and(|pid| pid <= 0) {
                return Err(format!("instance {}: a pid above 0 would be right", target.id));
            }
        }
        Ok(())
    }
}

fn root() -> String {
    "/".into()
}

#[expect(clippy::unnecessary_wraps, reason = "serde wants the type of the field")]
fn timeout_ms() -> Option<u64> {
    Some(60_000)
}

fn wait_ms() -> u64 {
    10_000
}

fn attempts() -> u32 {
    3
}

fn queue_max() -> usize {
    10_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_table_is_read_with_defaults() {
        let table = Table::parse(
            br#"{"version": 3, "listeners": [{"address": "127.0.0.1:80", "rules": [{"service": "a/b"}]}],
                 "services": {"a/b": {"targets": []}}}"#,
        )
        .unwrap();

        assert_eq!((table.version, table.listeners[0].rules[0].path.as_str()), (3, "/"));
        assert_eq!(table.services["a/b"].timeout_ms, Some(60_000));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let wrong = Table::parse(br#"{"version": "one"}"#).unwrap_err();
        let missing = Table::parse(
            br#"{"version": 1, "listeners": [{"address": "127.0.0.1:80", "rules": [{"service": "a/b"}]}]}"#,
        )
        .unwrap_err();
        let twice =
            Table::parse(br#"{"version": 1, "listeners": [{"address": "127.0.0.1:80"}, {"address": "127.0.0.1:80"}]}"#)
                .unwrap_err();

        assert!(wrong.contains("one") && missing.contains("a/b") && twice.contains("127.0.0.1:80"));
    }
}

//! The routing table as it comes in: the shape of `src/unisono/gateway/table.py`, checked once here, so that
//! what the proxy holds is never invalid. Fields that are not known are passed over: the gateway outlives the
//! node, and a newer node's table must not be refused for a word more.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub mod policy;

pub use policy::{Balance, Concurrency, HashOn, HeaderMatch, Hedge, Mirror, Protocol, Retry, Share, Sticky};

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
    /// `None`: no access log is written.
    #[serde(default)]
    pub access_log: Option<AccessLog>,
}

/// The access log of all requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessLog {
    /// How a line is written.
    pub format: LogFormat,
    /// The file; older parts of it are beside it.
    pub path: PathBuf,
}

/// How a request is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One object.
    Json,
    /// As Apache and nginx do.
    Combined,
}

/// An address at which the gateway answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Listener {
    /// IP address and port.
    pub address: SocketAddr,
    /// What is spoken there.
    #[serde(default)]
    pub mode: Mode,
    /// `None`: clear text.
    #[serde(default)]
    pub tls: Option<Tls>,
    /// Which requests go where.
    #[serde(default)]
    pub rules: Vec<Rule>,
}

/// What a listener speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// HTTP, of any version.
    #[default]
    Http,
    /// Whatever the one service of its one rule speaks.
    Tcp,
}

/// What a listener shows of itself. Files are named, not held: a key is never in the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tls {
    /// Chosen by the name that the client asks for; the first for all others.
    pub certificates: Vec<Certificate>,
    /// PEM file of the authorities whose clients are let in; `None`: all are.
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
}

/// PEM files of one certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// The certificate, and those between it and its authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// How early a request is served when not all can be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Before all others.
    High,
    /// As most are.
    #[default]
    Normal,
    /// After all others; the first to be refused.
    Low,
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
    /// How early they are served.
    #[serde(default)]
    pub priority: Priority,
}

/// A service as the gateway sees it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Backend {
    /// The ready instances.
    pub targets: Vec<Target>,
    /// Requests at a time per target; `None`: not limited.
    pub concurrency: Option<Concurrency>,
    /// What its targets are spoken to in.
    pub protocol: Protocol,
    /// Which target a request goes to.
    pub balance: Balance,
    /// What decides that where `balance` hashes; `None` elsewhere.
    pub hash_on: Option<HashOn>,
    /// No target gets more than this times the mean load by its hash; `None`: not bounded.
    pub hash_load: Option<f64>,
    /// Whether a request waits for a much faster target rather than go to a slow one at once.
    pub hold: bool,
    /// Arrival of a request to the head of its answer; `None`: no limit.
    pub timeout_ms: Option<u64>,
    /// Longest wait for a target.
    pub wait_ms: u64,
    /// Requests waiting at once; `None`: 50 for each place, from 128 to 10 000.
    pub queue_max: Option<usize>,
    /// Bytes of heads and bodies waiting at once.
    pub queue_bytes_max: usize,
    /// Further tries; read from `attempts`, too.
    #[serde(alias = "attempts")]
    pub retry: Retry,
    /// Second tries beside the first; `None`: none.
    pub hedge: Option<Hedge>,
    /// Whether a target that fails again and again gets no requests for a while.
    pub eject: bool,
    /// How long a new target's limit rises; 0: it has it at once.
    pub slow_start_ms: u64,
    /// `None`: each request goes where `balance` says.
    pub sticky: Option<Sticky>,
    /// `None`: no copies.
    pub mirror: Option<Mirror>,
    /// Shares of revisions; empty: revisions make no difference.
    pub split: Vec<Share>,
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
    /// The revision of the service that it runs.
    #[serde(default)]
    pub revision: String,
    /// How many requests it should get, compared with the others.
    #[serde(default = "weight")]
    pub weight: u32,
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
            listener.check().map_err(|fault| format!("listener {address}: {fault}"))?;
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
        self.services.iter().try_for_each(|(name, backend)| {
            backend
                .check()
                .and_then(|()| self.check_mirror(name, backend))
                .map_err(|fault| format!("service {name}: {fault}"))
        })
    }

    fn check_mirror(&self, name: &str, backend: &Backend) -> Result<(), String> {
        match &backend.mirror {
            Some(mirror) if mirror.service == name => {
                Err("mirror is the service itself; another would be right".into())
            }
            Some(mirror) if !self.services.contains_key(&mirror.service) => {
                Err(format!("mirror is the service {:?}, which is not in the table", mirror.service))
            }
            _ => Ok(()),
        }
    }
}

impl Listener {
    fn check(&self) -> Result<(), String> {
        if self.mode == Mode::Tcp {
            let whole = |rule: &Rule| rule.path == "/" && rule.host.is_none();
            if self.rules.len() != 1 || !self.rules.iter().all(whole) {
                return Err(format!(
                    "mode tcp with {} rules; one, for path / and any host, would be right",
                    self.rules.len()
                ));
            }
        }
        if self.tls.as_ref().is_some_and(|tls| tls.certificates.is_empty()) {
            return Err("tls without a certificate; at least one would be right".into());
        }
        Ok(())
    }
}

impl Rule {
    fn check(&self) -> Result<(), String> {
        if self.path.starts_with('/') { Ok(()) } else { Err(format!("path {:?} does not begin with /", self.path)) }
    }
}

impl Default for Backend {
    /// A service without targets, with all else as the table has it by default.
    fn default() -> Self {
        Self {
            targets: Vec::new(),
            concurrency: None,
            protocol: Protocol::default(),
            balance: Balance::default(),
            hash_on: None,
            hash_load: Some(1.25),
            hold: false,
            timeout_ms: Some(60_000),
            wait_ms: 10_000,
            queue_max: None,
            queue_bytes_max: 64 * 1024 * 1024,
            retry: Retry::default(),
            hedge: None,
            eject: true,
            slow_start_ms: 10_000,
            sticky: None,
            mirror: None,
            split: Vec::new(),
        }
    }
}

impl Backend {
    fn check(&self) -> Result<(), String> {
        if self.balance.hashes() && self.hash_on.is_none() {
            return Err("balance hashes without hash_on; a header, a cookie, path or client would be right".into());
        }
        if let Some(load) = self.hash_load.filter(|load| !(1.0..=100.0).contains(load)) {
            return Err(format!("hash_load is {load}; 1 to 100, or null for no bound, would be right"));
        }
        self.hash_on.as_ref().map_or(Ok(()), HashOn::check)?;
        self.retry.check()?;
        self.hedge.as_ref().map_or(Ok(()), Hedge::check)?;
        self.sticky.as_ref().map_or(Ok(()), Sticky::check)?;
        self.mirror.as_ref().map_or(Ok(()), Mirror::check)?;
        Share::check(&self.split)?;
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

fn weight() -> u32 {
    100
}

#[cfg(test)]
mod tests;

//! What the table says of how a service's requests are treated, for those who deliver them and for dispatch.

use std::time::Duration;

use http::header::HeaderMap;

use super::sticky;
use crate::dispatch;
use crate::table;
use crate::table::policy::{HashOn, Hedge, Retry};

/// What a service's requests are held to; see `table.py` for the meaning of each.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Arrival to the head of the answer; `None`: no limit.
    pub timeout: Option<Duration>,
    /// Longest wait for a target.
    pub wait: Duration,
    /// Further tries.
    pub retry: Retry,
    /// Shares of revisions; empty: they make no difference.
    pub split: Vec<table::Share>,
    /// Copies to another service.
    pub mirror: Option<table::Mirror>,
    /// The cookie that names the target that a client had.
    pub sticky: Option<table::Sticky>,
    /// Second tries beside the first.
    pub hedge: Option<Hedge>,
    /// What requests have in common that are to meet at one target; `None`: the balance does not go by it.
    hash_on: Option<HashOn>,
}

impl From<&table::Backend> for Policy {
    fn from(backend: &table::Backend) -> Self {
        Self {
            timeout: backend.timeout_ms.map(Duration::from_millis),
            wait: Duration::from_millis(backend.wait_ms),
            retry: backend.retry.clone(),
            split: backend.split.clone(),
            mirror: backend.mirror.clone(),
            sticky: backend.sticky.clone(),
            hedge: backend.hedge.clone(),
            hash_on: backend.hash_on.clone().filter(|_| backend.balance.hashes()),
        }
    }
}

impl Policy {
    /// Whether it makes a difference what headers a request has, cookies aside.
    pub fn goes_by_headers(&self) -> bool {
        !self.split.is_empty() || matches!(self.hash_on, Some(HashOn::Header(_) | HashOn::Client))
    }

    /// What a request has in common with those that are to meet at its target; `None`: nothing.
    pub fn hash(&self, path: &str, headers: &HeaderMap) -> Option<u64> {
        let header = |name: &str| headers.get(name).map(|value| dispatch::hash(value.as_bytes()));
        match self.hash_on.as_ref()? {
            HashOn::Header(name) => header(name),
            HashOn::Cookie(name) => sticky::cookie(name, headers).map(dispatch::hash),
            HashOn::Path => Some(dispatch::hash(path.as_bytes())),
            // The gateway has put the client's address there, and nothing else.
            HashOn::Client => header("x-forwarded-for"),
        }
    }
}

impl From<&table::Backend> for dispatch::Policy {
    fn from(backend: &table::Backend) -> Self {
        Self {
            concurrency: backend.concurrency.into(),
            balance: backend.balance.into(),
            hash_load: backend.hash_load,
            hold: backend.hold,
            queue_max: backend.queue_max,
            queue_bytes_max: u64::try_from(backend.queue_bytes_max).unwrap_or(u64::MAX),
            eject: backend.eject,
            slow_start: Duration::from_millis(backend.slow_start_ms),
        }
    }
}

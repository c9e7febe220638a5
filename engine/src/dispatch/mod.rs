//! Which instance gets which request. Pure: no sockets, no clock, no chance of its own; time comes in as an
//! argument and what is to be done goes out as a value, so that every rule here is tested without a process.
//!
//! One [`Service`] has one queue. A request is bound to a target as late as possible: it waits in the queue
//! until a target has a free *place*, and the first in the queue gets the first place that frees.
//! Connections, retries and bodies are `proxy/`'s.

mod admission;
mod ask;
mod budget;
mod choose;
mod choosing;
mod ending;
mod estimate;
mod hashing;
mod health;
mod held;
mod limit;
mod outcome;
mod own;
mod policy;
mod queue;
mod service;
mod target;
mod waiting;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod words;

use std::time::Duration;

pub use ask::{Ask, Class, Next, Notice, Refusal, Sought, TargetKey, Ticket};
pub use budget::{Budget, backoff};
pub use hashing::hash;
pub use health::Cause;
pub use outcome::{Failure, Outcome};
pub use policy::{Balance, Concurrency, Policy};
pub use service::Service;
pub use target::TargetInfo;

/// A moment: the time since some fixed start.
pub type Time = Duration;

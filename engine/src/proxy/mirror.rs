//! Copies of requests to another service. Nobody waits for a copy or sees its answer; it is a request of the other
//! service like any other, after all others in its queue, and never tried again once it went out. What can't be
//! copied, or is too much, is left out and counted.

use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderValue;
use tokio::time::Instant;

use super::attempt::{Lost, attempt, read_out};
use super::backend::Backend;
use super::headers::UNISONO_MIRROR;
use super::outbound::Outbound;
use super::problem::Reason;
use super::revisions::Avoid;
use super::seek::Seeking;
use crate::dispatch::Class;
use crate::table::Mirror;

/// Copies that are on their way to one service at once; with bodies of at most 64 KiB each.
const COPIES_MAX: u64 = 256;
/// Longest that a copy lasts where its service has no timeout.
const LASTS_MAX: Duration = Duration::from_secs(60);
/// Tries of which nothing went out, or that met a kept connection that was just being closed.
const TRIES_MAX: u32 = 3;

/// Sends a copy of a request on its way, if it is one of those that are copied.
pub fn copy(from: &Backend, mirror: &Mirror, outbound: &Outbound) {
    let Some(to) = from.copies_to(mirror.percent) else { return };
    let (Some(slot), Some(mut copied)) = (Slot::take(&to), outbound.copied()) else {
        from.copies_left_out.more();
        return;
    };
    copied.headers.insert(UNISONO_MIRROR.clone(), HeaderValue::from_static("1"));
    copied.class = Class::Low;
    tokio::task::spawn_local(async move {
        deliver(&to, &copied).await;
        drop(slot);
    });
}

async fn deliver(to: &Arc<Backend>, copied: &Outbound) {
    let (ticket, policy) = to.arrive(Instant::now());
    let ends = Instant::now() + policy.timeout.unwrap_or(LASTS_MAX);
    let mut avoid = Avoid::default();
    for _ in 0..TRIES_MAX {
        let seeking = Seeking { ticket, avoid: &avoid, class: copied.class, bytes: copied.bytes(), hash: None };
        let now = Instant::now();
        let Ok(place) = to.seek(seeking, now, policy.wait.min(ends - now)).await else { break };
        let key = place.key();
        match attempt(None, copied, place, Some((ends, Reason::Timeout))).await {
            Ok(answered) => {
                // Beyond its time the instance has no reader any more, and the connection is closed.
                let _ = tokio::time::timeout_at(ends, read_out(answered)).await;
                return;
            }
            Err(Lost::Unsent) => avoid.failed(key),
            Err(Lost::Stale) => {}
            Err(_) => break,
        }
    }
    to.failures.more();
}

/// One of the copies on their way to a service.
struct Slot(Arc<Backend>);

impl Slot {
    fn take(to: &Arc<Backend>) -> Option<Self> {
        let slot = Self(Arc::clone(to));
        to.copies_open.more();
        (to.copies_open.get() <= COPIES_MAX).then_some(slot)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.copies_open.less();
    }
}

//! A request's search for a place: at once, in the queue, or beside a first try; and what there may be of further tries.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::backend::Backend;
use super::place::Place;
use super::revisions::Avoid;
use crate::dispatch::{self, Ask, Class, Refusal, Sought, TargetKey, Ticket};
use crate::observe::events::Kind;
use crate::table::policy::Retry;

/// Why no place was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPlace {
    /// Too many requests wait already.
    QueueFull,
    /// It would have waited for longer than it may: for so long.
    Late(Duration),
    /// It waited until it could not be answered in its time any more.
    Shed(Duration),
    /// The wait was over and the service has no target.
    NoTarget,
    /// The wait was over and no target had a free place.
    WaitTimeout,
}

/// A request that seeks a place.
#[derive(Clone, Copy)]
pub struct Seeking<'a> {
    /// From [`Backend::arrive`].
    pub ticket: Ticket,
    /// Where it had rather not go.
    pub avoid: &'a Avoid,
    /// How early it is served.
    pub class: Class,
    /// What it takes up in memory.
    pub bytes: u64,
    /// What requests that belong together have in common; see [`Policy::hash`].
    pub hash: Option<u64>,
}

impl Backend {
    /// Seeks a place from `began` on, waiting in the queue for at most `patience`. Dropping the future leaves the queue.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn seek(
        self: &Arc<Self>,
        seeking: Seeking<'_>,
        began: Instant,
        patience: Duration,
    ) -> Result<Place, NoPlace> {
        let Seeking { ticket, avoid, class, bytes, hash } = seeking;
        let (receiver, is_news, wake) = {
            let now = self.common.at(began);
            let deadline = now.saturating_add(patience);
            let ask = Ask {
                ticket,
                avoid: &avoid.keys,
                own: avoid.own,
                hash,
                is_again: avoid.is_again,
                class,
                deadline,
                bytes,
            };
            let mut core = self.core();
            match core.service.seek(&ask, now) {
                Sought::Placed(key) => return Ok(self.place(&core, key, now)),
                Sought::Refused(Refusal::QueueFull) => return Err(NoPlace::QueueFull),
                Sought::Refused(Refusal::Late { wait }) => return Err(NoPlace::Late(wait)),
                Sought::Waiting => {
                    let (receiver, is_news) = core.wait(ticket);
                    (receiver, is_news, core.plan_wake(now))
                }
            }
        };
        let _leaves = LeavesQueue { backend: self, class, ticket };
        if is_news {
            self.tell(Kind::NoTarget, None, "a request waits and the service has no target");
        }
        if let Some(at) = wake {
            self.wake_at(at);
        }
        match tokio::time::timeout(patience, receiver).await {
            Ok(Ok(Ok(place))) => Ok(place),
            Ok(Ok(Err(Refusal::QueueFull))) => Err(NoPlace::QueueFull),
            // The sender lives in `waiters` as long as this request does, so from here on time has run out.
            _ if self.core().service.serving() == 0 => Err(NoPlace::NoTarget),
            Ok(Ok(Err(Refusal::Late { wait }))) => Err(NoPlace::Shed(wait)),
            _ => Err(NoPlace::WaitTimeout),
        }
    }

    /// An idle place at a target other than these, for a second try beside a first one, if the service's budget has
    /// one left.
    pub fn seek_idle(self: &Arc<Self>, avoid: &[TargetKey], share: f64) -> Option<Place> {
        let now = self.common.now();
        let mut core = self.core();
        if !core.hedges.withdraw(share, 0.0, now) {
            return None;
        }
        let key = core.service.seek_idle(avoid, now);
        if key.is_none() {
            core.hedges.give_back(now);
        }
        key.map(|key| self.place(&core, key, now))
    }

    /// How long a first try has before a second one beside it, as measured; `None`: too little is known.
    pub fn hedge_after(&self) -> Option<Duration> {
        self.core().service.hedge_after()
    }

    /// Whether a target other than these may get requests.
    pub fn has_other(&self, avoid: &[TargetKey]) -> bool {
        self.core().service.has_other(avoid)
    }

    /// Takes a further try from the service's budget, if there is one.
    pub fn may_retry(&self, retry: &Retry) -> bool {
        self.core().budget.withdraw(retry.budget, retry.floor_per_s, self.common.now())
    }

    /// The pause before a request's `number`th further try, from 1 on.
    pub fn backoff(&self, number: u32, retry: &Retry) -> Duration {
        let (first, most) = (Duration::from_millis(retry.backoff_ms), Duration::from_millis(retry.backoff_max_ms));
        dispatch::backoff(number, first, most, self.core().chance.unit())
    }
}

/// Takes a request out of the queue when its wait ends, whichever way.
struct LeavesQueue<'a> {
    backend: &'a Backend,
    class: Class,
    ticket: Ticket,
}

impl Drop for LeavesQueue<'_> {
    fn drop(&mut self) {
        let mut core = self.backend.core();
        core.service.cancel(self.class, self.ticket);
        core.waiters.remove(&self.ticket);
    }
}

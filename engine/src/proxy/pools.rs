//! The idle connections to instances that one worker keeps: a connection belongs to the thread that made it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::multiplex::{Line, Trunks};
use super::target::Target;
use super::upstream::{IDLE_MAX, Pool, Upstream};

type ByTarget<T> = RefCell<BTreeMap<u64, (Arc<Target>, T)>>;

#[derive(Default)]
struct Pools {
    /// By [`Target::serial`].
    pools: ByTarget<Pool>,
    /// In the same way, to those who speak HTTP/2.
    trunks: ByTarget<Rc<Trunks>>,
    /// A connection was put in while the sweeper sleeps.
    filled: Notify,
    sweeping: Cell<bool>,
}

thread_local! {
    static POOLS: Rc<Pools> = Rc::default();
}

/// A kept connection to a target, if there is one that is still good; see [`Pool::take`].
pub fn take(target: &Target, ask_kernel: bool, now: Instant) -> Option<Box<Upstream>> {
    POOLS.with(|all| {
        let pools = all.pools.borrow();
        pools.get(&target.serial).and_then(|(target, pool)| pool.take(ask_kernel, target.epoch(), now))
    })
}

/// Keeps a connection for the next request of this worker, if the target still gets any.
pub fn put(target: &Arc<Target>, upstream: Box<Upstream>) {
    if target.is_retired() {
        return;
    }
    POOLS.with(|all| {
        let mut pools = all.pools.borrow_mut();
        let (_, pool) = pools.entry(target.serial).or_insert_with(|| (Arc::clone(target), Pool::default()));
        pool.put(upstream, target.epoch());
        if !all.sweeping.get() {
            all.filled.notify_one();
        }
    });
}

/// A part in a connection of HTTP/2 to a target; see [`Trunks::line`].
///
/// # Errors
/// See there.
pub async fn line(target: &Arc<Target>) -> io::Result<(Line, bool)> {
    let trunks = POOLS.with(|all| {
        let mut trunks = all.trunks.borrow_mut();
        let (_, trunks) = trunks.entry(target.serial).or_insert_with(|| (Arc::clone(target), Rc::default()));
        if !all.sweeping.get() {
            all.filled.notify_one();
        }
        Rc::clone(trunks)
    });
    trunks.line(target.address).await
}

/// Closes this worker's idle connections in time, and those to a target at once when `retired` says that one
/// gets no more requests. Sleeps without a timer while there are none.
pub async fn sweep(mut retired: watch::Receiver<u64>) {
    let all = POOLS.with(Rc::clone);
    loop {
        all.sweeping.set(false);
        all.filled.notified().await;
        all.sweeping.set(true);
        while all.sweep() {
            tokio::select! {
                () = tokio::time::sleep(IDLE_MAX / 4) => {}
                // The gateway holds the other side for as long as its workers run.
                _ = retired.changed() => {}
            }
        }
    }
}

impl Pools {
    /// Closes what has been idle for too long, or belongs to a target of the past; true when something is left.
    fn sweep(&self) -> bool {
        let mut pools = self.pools.borrow_mut();
        pools.retain(|_, (target, pool)| !target.is_retired() && pool.sweep(target.epoch()));
        let mut trunks = self.trunks.borrow_mut();
        trunks.retain(|_, (target, trunks)| !target.is_retired() && trunks.sweep());
        !pools.is_empty() || !trunks.is_empty()
    }
}

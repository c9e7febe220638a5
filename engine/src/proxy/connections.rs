//! The client connections of all workers: how many there are, how many there may be, and how they are told to
//! end.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Waker};

use slab::Slab;
use tokio::sync::Notify;

use crate::sync::lock;

/// See the module.
pub struct Connections {
    max: usize,
    seats: Mutex<Slab<Option<Waker>>>,
    /// By worker.
    counts: Vec<AtomicUsize>,
    going: AtomicBool,
    left: Notify,
}

impl Connections {
    /// Room for `max` connections, shared out over so many workers.
    pub fn new(max: usize, workers: usize) -> Arc<Self> {
        Arc::new(Self {
            max,
            seats: Mutex::default(),
            counts: (0..workers.max(1)).map(|_| AtomicUsize::new(0)).collect(),
            going: AtomicBool::new(false),
            left: Notify::new(),
        })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.seats().len()
    }

    /// Waits until there may be one more.
    pub async fn wait_for_room(&self) {
        self.wait_until(|count| count < self.max).await;
    }

    /// Waits until there are none.
    pub async fn wait_for_end(&self) {
        self.wait_until(|count| count == 0).await;
    }

    /// Counts one in, at the worker with the fewest, until the seat is dropped.
    pub fn sit_down(self: &Arc<Self>) -> Seat {
        let fewest = self.counts.iter().enumerate().min_by_key(|(_, count)| count.load(Ordering::Relaxed));
        let worker = fewest.map_or(0, |(worker, _)| worker);
        self.counts[worker].fetch_add(1, Ordering::Relaxed);
        let index = self.seats().insert(None);
        Seat { connections: Arc::clone(self), index, worker, is_listening: Cell::new(false) }
    }

    /// Tells all to end with their current answer.
    pub fn go(&self) {
        self.going.store(true, Ordering::SeqCst);
        for (_, waker) in &mut *self.seats() {
            if let Some(waker) = waker.take() {
                waker.wake();
            }
        }
    }

    async fn wait_until(&self, is_so: impl Fn(usize) -> bool) {
        loop {
            let mut left = std::pin::pin!(self.left.notified());
            // From here on a departure is not missed, whichever worker it happens on.
            left.as_mut().enable();
            if is_so(self.count()) {
                return;
            }
            left.await;
        }
    }

    fn seats(&self) -> MutexGuard<'_, Slab<Option<Waker>>> {
        lock(&self.seats)
    }
}

/// A connection's part in [`Connections`].
pub struct Seat {
    connections: Arc<Connections>,
    index: usize,
    /// Which worker it is for, from 0 on.
    pub worker: usize,
    is_listening: Cell<bool>,
}

impl Seat {
    /// Whether the gateway is going; if not, the task is woken when it does.
    pub fn is_going(&self, cx: &Context<'_>) -> bool {
        if !self.is_listening.replace(true)
            && let Some(seat) = self.connections.seats().get_mut(self.index)
        {
            *seat = Some(cx.waker().clone());
        }
        self.connections.going.load(Ordering::SeqCst)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.connections.seats().remove(self.index);
        self.connections.counts[self.worker].fetch_sub(1, Ordering::Relaxed);
        self.connections.left.notify_waiters();
    }
}

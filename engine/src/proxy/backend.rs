//! One service as the gateway serves it: its queue and places ([`crate::dispatch`]) joined to what dispatch
//! does not know, namely tasks that wait, addresses, connections and counts.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::gateway::Gateway;
use super::upstream::{Pool, Upstream};
use crate::control::events::{Event, Kind};
use crate::control::table;
use crate::dispatch::{Limits, Service, Sought, TargetKey, Ticket};

/// What a service's requests are held to; see `table.py` for the meaning of each.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Arrival to the head of the answer; `None`: no limit.
    pub timeout: Option<Duration>,
    /// Longest wait for a target.
    pub wait: Duration,
    /// Tries of a request that may be sent again.
    pub attempts: u32,
}

impl From<&table::Backend> for Policy {
    fn from(backend: &table::Backend) -> Self {
        Self {
            timeout: backend.timeout_ms.map(Duration::from_millis),
            wait: Duration::from_millis(backend.wait_ms),
            attempts: backend.retry.attempts,
        }
    }
}

/// One instance, from the table that names it first to the end of its last request.
pub struct Target {
    /// The instance's name and generation, as in the table.
    pub id: String,
    /// Rises with each start of the instance.
    pub generation: u64,
    /// Where it listens.
    pub address: SocketAddr,
    /// Kept-alive connections.
    pub pool: Pool,
    /// Tries sent there.
    pub requests: Cell<u64>,
    /// Tries that failed there: no connection, reset, too late.
    pub failures: Cell<u64>,
    in_flight: Cell<u64>,
}

impl Target {
    /// Requests in flight there.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.get()
    }
}

/// A request's right to be at a target; given back when dropped, exactly once.
pub struct Place {
    backend: Rc<Backend>,
    key: TargetKey,
    /// Where the request is to go.
    pub target: Rc<Target>,
}

impl Place {
    /// Names the target for [`Backend::seek`]'s `avoid`.
    pub fn key(&self) -> TargetKey {
        self.key
    }

    /// Keeps a connection for the next request and gives the place back.
    pub fn put_back(self, upstream: Box<Upstream>) {
        if self.target.pool.put(upstream) {
            self.backend.gateway.pooled();
        }
    }

    /// The target broke an answer off that the client has seen the beginning of.
    pub fn broke_off(&self) {
        self.backend.failures.set(self.backend.failures.get() + 1);
    }

    /// A try at the target failed; connections kept to it are not to be trusted.
    pub fn failed(&self) {
        self.target.failures.set(self.target.failures.get() + 1);
        self.target.pool.clear();
    }

    /// A connection to the target was made or was there.
    pub fn answered(&self) {
        let news = self.backend.core.borrow_mut().answered(self.key);
        if news {
            self.backend.pump();
        }
    }

    /// No connection to the target could be made.
    pub fn refused(&self, reason: &str) {
        let now = self.backend.gateway.now();
        let news = self.backend.core.borrow_mut().refused(self.key, now);
        if news {
            self.backend.tell(Kind::TargetSuspect, Some(&self.target), reason);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.target.in_flight.set(self.target.in_flight.get() - 1);
        self.backend.core.borrow_mut().release(self.key);
        self.backend.pump();
        if self.target.in_flight.get() == 0 {
            self.backend.gateway.told_idle();
        }
    }
}

/// Why no place was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPlace {
    /// Too many requests wait already.
    QueueFull,
    /// The wait was over and the service has no target.
    NoTarget,
    /// The wait was over and no target had a free place.
    WaitTimeout,
}

/// One service: places, queue, targets, counts.
pub struct Backend {
    /// "application/service".
    pub name: String,
    /// What its requests are held to.
    pub policy: Cell<Policy>,
    /// Requests that came in.
    pub requests: Cell<u64>,
    /// Requests that got an answer of the gateway's own because no instance gave one, or a broken-off answer.
    pub failures: Cell<u64>,
    gateway: Rc<Gateway>,
    core: RefCell<Service>,
    targets: RefCell<HashMap<TargetKey, Rc<Target>>>,
    waiters: RefCell<HashMap<Ticket, oneshot::Sender<Place>>>,
    /// When the task that wakes the queue for targets set aside is to run; `None`: there is no such task.
    wake: Cell<Option<Instant>>,
    told_no_target: Cell<bool>,
}

impl Backend {
    /// A service as the table says, still without targets.
    pub fn new(gateway: Rc<Gateway>, name: &str, backend: &table::Backend) -> Rc<Self> {
        Rc::new(Self {
            name: name.to_owned(),
            policy: Cell::new(backend.into()),
            requests: Cell::new(0),
            failures: Cell::new(0),
            gateway,
            core: RefCell::new(Service::new(limits(backend))),
            targets: RefCell::default(),
            waiters: RefCell::default(),
            wake: Cell::new(None),
            told_no_target: Cell::new(false),
        })
    }

    /// Follows the table: new targets get requests, those it does not name get none from now on. Targets are
    /// the same when id, generation and address are.
    pub fn follow(self: &Rc<Self>, backend: &table::Backend) {
        self.policy.set(backend.into());
        self.core.borrow_mut().set_limits(limits(backend));
        let gone: Vec<TargetKey> = self
            .targets
            .borrow()
            .iter()
            .filter(|(_, target)| !backend.targets.iter().any(|wanted| is_same(wanted, target)))
            .map(|(key, _)| *key)
            .collect();
        for key in gone {
            self.drop_target(key);
        }
        for wanted in &backend.targets {
            let known = self.targets.borrow().values().any(|target| is_same(wanted, target));
            if !known && !self.gateway.has_exited(&wanted.id, wanted.generation) {
                self.add_target(wanted);
            }
        }
        self.pump();
    }

    /// Sends nothing more to an instance whose process is gone.
    pub fn drop_exited(self: &Rc<Self>, id: &str, generation: u64) {
        let found = self
            .targets
            .borrow()
            .iter()
            .find(|(_, target)| target.id == id && target.generation == generation)
            .map(|(key, _)| *key);
        if let Some(key) = found {
            self.drop_target(key);
            self.pump();
        }
    }

    /// A ticket for a request that has just arrived.
    pub fn ticket(&self) -> Ticket {
        self.requests.set(self.requests.get() + 1);
        self.core.borrow_mut().ticket()
    }

    /// Seeks a place, waiting in the queue for at most `patience`. Dropping the future leaves the queue.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn seek(
        self: &Rc<Self>,
        ticket: Ticket,
        avoid: &[TargetKey],
        patience: Duration,
    ) -> Result<Place, NoPlace> {
        let sought = self.core.borrow_mut().seek(ticket, avoid, self.gateway.now());
        match sought {
            Sought::Placed(key) => Ok(self.place(key)),
            Sought::Full => Err(NoPlace::QueueFull),
            Sought::Waiting => self.wait(ticket, patience).await,
        }
    }

    /// Requests that wait for a place.
    pub fn waiting(&self) -> usize {
        self.core.borrow().waiting()
    }

    /// The targets that may get requests, by name.
    pub fn targets(&self) -> Vec<Rc<Target>> {
        let mut targets: Vec<_> = self.targets.borrow().values().cloned().collect();
        targets.sort_by(|a, b| (&a.id, a.generation).cmp(&(&b.id, b.generation)));
        targets
    }

    async fn wait(self: &Rc<Self>, ticket: Ticket, patience: Duration) -> Result<Place, NoPlace> {
        let (sender, receiver) = oneshot::channel();
        self.waiters.borrow_mut().insert(ticket, sender);
        let _leaves = LeavesQueue { backend: self, ticket };
        self.plan_wake();
        if self.core.borrow().serving() == 0 && !self.told_no_target.replace(true) {
            self.tell(Kind::NoTarget, None, "a request waits and the service has no target");
        }
        match tokio::time::timeout(patience, receiver).await {
            Ok(Ok(place)) => Ok(place),
            // The sender lives in `waiters` as long as this request does, so only time can run out here.
            _ if self.core.borrow().serving() == 0 => Err(NoPlace::NoTarget),
            _ => Err(NoPlace::WaitTimeout),
        }
    }

    fn add_target(self: &Rc<Self>, wanted: &table::Target) {
        let key = self.core.borrow_mut().add();
        let target = Rc::new(Target {
            id: wanted.id.clone(),
            generation: wanted.generation,
            address: wanted.address,
            pool: Pool::default(),
            requests: Cell::new(0),
            failures: Cell::new(0),
            in_flight: Cell::new(0),
        });
        self.gateway.account(&target);
        self.targets.borrow_mut().insert(key, target);
        self.told_no_target.set(false);
    }

    fn drop_target(&self, key: TargetKey) {
        self.core.borrow_mut().remove(key);
        if let Some(target) = self.targets.borrow_mut().remove(&key) {
            target.pool.close();
        }
    }

    fn place(self: &Rc<Self>, key: TargetKey) -> Place {
        let target = Rc::clone(&self.targets.borrow()[&key]);
        target.in_flight.set(target.in_flight.get() + 1);
        Place { backend: Rc::clone(self), key, target }
    }

    /// Hands free places to those who wait, oldest first.
    fn pump(self: &Rc<Self>) {
        loop {
            let granted = self.core.borrow_mut().grant(self.gateway.now());
            let Some((ticket, key)) = granted else { break };
            let place = self.place(key);
            let waiter = self.waiters.borrow_mut().remove(&ticket);
            // A waiter leaves the queue before it goes, so there is one; were there none, dropping the place
            // here gives it back.
            if let Some(waiter) = waiter {
                drop(waiter.send(place));
            }
        }
        self.plan_wake();
    }

    /// Sees to it that the queue is looked at again when a target that is set aside may be tried.
    fn plan_wake(self: &Rc<Self>) {
        let now = self.gateway.now();
        let Some(wait) = self.core.borrow().wake_at(now).map(|at| at - now) else { return };
        let at = Instant::now() + wait;
        if self.wake.get().is_some_and(|planned| planned <= at) {
            return;
        }
        self.wake.set(Some(at));
        let backend = Rc::clone(self);
        tokio::task::spawn_local(async move {
            tokio::time::sleep_until(at).await;
            if backend.wake.get() == Some(at) {
                backend.wake.set(None);
                backend.pump();
            }
        });
    }

    fn tell(&self, kind: Kind, target: Option<&Target>, reason: &str) {
        self.gateway.events.tell(&Event {
            kind,
            service: &self.name,
            instance: target.map(|target| target.id.as_str()),
            generation: target.map(|target| target.generation),
            reason,
        });
    }
}

/// Takes a request out of the queue when its wait ends, whichever way.
struct LeavesQueue<'a> {
    backend: &'a Backend,
    ticket: Ticket,
}

impl Drop for LeavesQueue<'_> {
    fn drop(&mut self) {
        self.backend.core.borrow_mut().cancel(self.ticket);
        self.backend.waiters.borrow_mut().remove(&self.ticket);
    }
}

fn limits(backend: &table::Backend) -> Limits {
    let concurrency = match backend.concurrency {
        Some(table::Concurrency::Limit(limit)) => Some(limit),
        Some(table::Concurrency::Auto) | None => None,
    };
    Limits { concurrency, queue_max: backend.queue_max.unwrap_or(10_000) }
}

fn is_same(wanted: &table::Target, target: &Target) -> bool {
    wanted.id == target.id && wanted.generation == target.generation && wanted.address == target.address
}

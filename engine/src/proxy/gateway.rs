//! The gateway as a whole: the table in force and what was made of it. All changes happen here, between two
//! requests, so that a request sees one table from its beginning.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::task::{Context, Waker};
use std::time::Duration;

use slab::Slab;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::backend::{Backend, Target};
use super::exits;
use super::listen::{self, Listening};
use super::route::{Route, Routes};
use super::upstream::IDLE_MAX;
use crate::control::events::{Event, Events, Kind};
use crate::control::table::{self, Table};
use crate::dispatch::Time;

/// An address that could not be bound, and why.
#[derive(Debug)]
pub struct Unbound {
    /// As the table names it.
    pub address: SocketAddr,
    /// The kernel's word for it.
    pub reason: io::Error,
}

/// The state of the gateway.
pub struct Gateway {
    /// What the node is told at once.
    pub events: Events,
    /// The client connections.
    pub connections: Connections,
    start: Instant,
    table: RefCell<Rc<Table>>,
    listeners: RefCell<BTreeMap<SocketAddr, Rc<Listening>>>,
    backends: RefCell<HashMap<String, Rc<Backend>>>,
    /// By instance and generation, for those of the table that are processes of this machine.
    watches: RefCell<HashMap<(String, u64), AbortHandle>>,
    /// Instances of the table whose process is gone.
    exited: RefCell<HashSet<(String, u64)>>,
    /// Every target in the table or still with requests.
    accounts: RefCell<Vec<Weak<Target>>>,
    /// A target has no request in flight any more.
    idle: Notify,
    /// A connection was put into a pool while the sweeper sleeps.
    pooled: Notify,
    sweeping: Cell<bool>,
}

impl Gateway {
    /// A gateway that answers nowhere yet, for at most `connections_max` clients at a time.
    pub fn new(connections_max: usize) -> Rc<Self> {
        let gateway = Rc::new(Self {
            events: Events::default(),
            connections: Connections::new(connections_max),
            start: Instant::now(),
            table: RefCell::default(),
            listeners: RefCell::default(),
            backends: RefCell::default(),
            watches: RefCell::default(),
            exited: RefCell::default(),
            accounts: RefCell::default(),
            idle: Notify::new(),
            pooled: Notify::new(),
            sweeping: Cell::new(false),
        });
        tokio::task::spawn_local(sweep_pools(Rc::clone(&gateway)));
        gateway
    }

    /// The clock of dispatch.
    pub fn now(&self) -> Time {
        self.start.elapsed()
    }

    /// The table in force.
    pub fn table(&self) -> Rc<Table> {
        Rc::clone(&self.table.borrow())
    }

    /// Follows a table: every request dispatched from the return on does.
    ///
    /// # Errors
    /// The listeners that cannot be bound; the table in force is the old one then.
    pub fn follow(self: &Rc<Self>, table: Table) -> Result<(), Vec<Unbound>> {
        let unbound = self.bind(&table);
        if !unbound.is_empty() {
            return Err(unbound);
        }
        self.apply(table);
        Ok(())
    }

    /// Follows a table as far as its listeners can be bound; gives those that cannot. For the start, when the
    /// last gateway's sockets may not be gone yet.
    pub fn follow_what_binds(self: &Rc<Self>, table: Table) -> Vec<Unbound> {
        let wanted = table.listeners.iter().map(|listener| listener.address);
        let unbound: Vec<_> = wanted.filter_map(|address| self.bind_one(address).err()).collect();
        self.apply(table);
        unbound
    }

    /// Tries again to bind a listener of the table in force; true when that is done with.
    pub fn bind_late(self: &Rc<Self>, address: SocketAddr) -> bool {
        let table = self.table();
        let wanted = table.listeners.iter().any(|listener| listener.address == address);
        if !wanted || self.listeners.borrow().contains_key(&address) {
            return true;
        }
        let bound = self.bind_one(address).is_ok();
        if bound {
            self.route(&table);
        }
        bound
    }

    /// Takes no more connections; those there end with their current answer.
    pub fn go(&self) {
        for listening in self.listeners.borrow().values() {
            listening.stop_accepting();
        }
        self.connections.go();
    }

    /// Whether the process of an instance of the table is known to be gone.
    pub fn has_exited(&self, id: &str, generation: u64) -> bool {
        self.exited.borrow().contains(&(id.to_owned(), generation))
    }

    /// The process of an instance is gone.
    pub fn exited(&self, service: &str, id: &str, generation: u64, pid: i32) {
        if !self.exited.borrow_mut().insert((id.to_owned(), generation)) {
            return;
        }
        let backend = self.backends.borrow().get(service).cloned();
        if let Some(backend) = backend {
            backend.drop_exited(id, generation);
        }
        self.events.tell(&Event {
            kind: Kind::TargetExited,
            service,
            instance: Some(id),
            generation: Some(generation),
            reason: &format!("process {pid} exited"),
        });
    }

    /// Remembers a target until its last request is over.
    pub fn account(&self, target: &Rc<Target>) {
        let mut accounts = self.accounts.borrow_mut();
        accounts.retain(|known| known.strong_count() > 0);
        accounts.push(Rc::downgrade(target));
    }

    /// A target has no request in flight any more.
    pub fn told_idle(&self) {
        self.idle.notify_waiters();
    }

    /// Requests in flight on an instance, in the table or not.
    pub fn in_flight(&self, id: &str, generation: u64) -> u64 {
        let accounts = self.accounts.borrow();
        let of_instance =
            accounts.iter().filter_map(Weak::upgrade).filter(|t| t.id == id && t.generation == generation);
        of_instance.map(|target| target.in_flight()).sum()
    }

    /// Waits until an instance has no request in flight, for at most `patience`; gives how many are left.
    pub async fn drained(&self, id: &str, generation: u64, patience: Duration) -> u64 {
        let draining = async {
            loop {
                let idle = self.idle.notified();
                if self.in_flight(id, generation) == 0 {
                    return;
                }
                idle.await;
            }
        };
        // Whether it drained or time ran out shows in the count.
        let _ = tokio::time::timeout(patience, draining).await;
        self.in_flight(id, generation)
    }

    /// The services by name.
    pub fn backends(&self) -> Vec<Rc<Backend>> {
        let mut backends: Vec<_> = self.backends.borrow().values().cloned().collect();
        backends.sort_by(|a, b| a.name.cmp(&b.name));
        backends
    }

    /// A connection went into a pool: it is to be closed when it has been idle for too long.
    pub fn pooled(&self) {
        if !self.sweeping.get() {
            self.pooled.notify_one();
        }
    }

    /// Binds the listeners of a table that are not bound; on failure all is as before.
    fn bind(self: &Rc<Self>, table: &Table) -> Vec<Unbound> {
        let missing: Vec<SocketAddr> = {
            let bound = self.listeners.borrow();
            table.listeners.iter().map(|listener| listener.address).filter(|a| !bound.contains_key(a)).collect()
        };
        let given_up = self.give_up_in_the_way(table, &missing);
        let unbound: Vec<_> = missing.iter().filter_map(|address| self.bind_one(*address).err()).collect();
        if !unbound.is_empty() {
            for address in &missing {
                if let Some(listening) = self.listeners.borrow_mut().remove(address) {
                    listening.close();
                }
            }
            for address in given_up {
                if let Err(Unbound { address, reason }) = self.bind_one(address) {
                    eprintln!("gateway: cannot listen at {address} again: {reason}");
                }
            }
            self.route(&self.table());
        }
        unbound
    }

    /// An address that is going may stand in the way of one that comes: 127.0.0.1:80 of 0.0.0.0:80.
    fn give_up_in_the_way(&self, table: &Table, missing: &[SocketAddr]) -> Vec<SocketAddr> {
        let stays = |address: &SocketAddr| table.listeners.iter().any(|listener| listener.address == *address);
        let mut listeners = self.listeners.borrow_mut();
        let in_the_way: Vec<SocketAddr> = listeners
            .keys()
            .filter(|old| !stays(old) && missing.iter().any(|new| new.port() == old.port()))
            .copied()
            .collect();
        for address in &in_the_way {
            if let Some(listening) = listeners.remove(address) {
                listening.close();
            }
        }
        in_the_way
    }

    fn bind_one(self: &Rc<Self>, address: SocketAddr) -> Result<(), Unbound> {
        if self.listeners.borrow().contains_key(&address) {
            return Ok(());
        }
        let listening = listen::bind(address)
            .and_then(|socket| Listening::start(self, address, socket))
            .map_err(|reason| Unbound { address, reason })?;
        self.listeners.borrow_mut().insert(address, listening);
        Ok(())
    }

    fn apply(self: &Rc<Self>, table: Table) {
        self.forget_what_is_gone(&table);
        for (name, wanted) in &table.services {
            let known = self.backends.borrow().get(name).cloned();
            let backend = known.unwrap_or_else(|| {
                let backend = Backend::new(Rc::clone(self), name, wanted);
                self.backends.borrow_mut().insert(name.clone(), Rc::clone(&backend));
                backend
            });
            backend.follow(wanted);
            for target in &wanted.targets {
                self.watch(name, target);
            }
        }
        self.route(&table);
        *self.table.borrow_mut() = Rc::new(table);
    }

    /// Drops what the table does not name any more: services with their targets, watches, addresses.
    fn forget_what_is_gone(self: &Rc<Self>, table: &Table) {
        let named: HashSet<(&str, u64)> = table
            .services
            .values()
            .flat_map(|backend| &backend.targets)
            .map(|target| (target.id.as_str(), target.generation))
            .collect();
        self.exited.borrow_mut().retain(|(id, generation)| named.contains(&(id.as_str(), *generation)));
        self.watches.borrow_mut().retain(|(id, generation), watch| {
            let stays = named.contains(&(id.as_str(), *generation));
            if !stays {
                watch.abort();
            }
            stays
        });
        let gone: Vec<_> =
            self.backends.borrow_mut().extract_if(|name, _| !table.services.contains_key(name)).collect();
        for (_, backend) in gone {
            backend.follow(&table::Backend::default());
        }
        self.listeners.borrow_mut().retain(|address, listening| {
            let stays = table.listeners.iter().any(|listener| listener.address == *address);
            if !stays {
                listening.close();
            }
            stays
        });
    }

    fn watch(self: &Rc<Self>, service: &str, target: &table::Target) {
        let instance = (target.id.clone(), target.generation);
        if self.exited.borrow().contains(&instance) || self.watches.borrow().contains_key(&instance) {
            return;
        }
        if let Some(watch) = exits::watch(self, service, target) {
            self.watches.borrow_mut().insert(instance, watch);
        }
    }

    /// Gives every bound listener its rules.
    fn route(&self, table: &Table) {
        let (listeners, backends) = (self.listeners.borrow(), self.backends.borrow());
        for wanted in &table.listeners {
            let Some(listening) = listeners.get(&wanted.address) else { continue };
            let rules = wanted.rules.iter().filter_map(|rule| {
                let backend = backends.get(&rule.service)?;
                Some(Route::new(rule.host.as_deref(), &rule.path, Rc::clone(backend)))
            });
            *listening.routes.borrow_mut() = Rc::new(Routes::new(rules.collect()));
        }
    }
}

/// Closes idle connections in time; sleeps without a timer while there are none.
async fn sweep_pools(gateway: Rc<Gateway>) {
    loop {
        gateway.pooled.notified().await;
        gateway.sweeping.set(true);
        loop {
            tokio::time::sleep(IDLE_MAX / 4).await;
            let targets: Vec<_> = gateway.accounts.borrow().iter().filter_map(Weak::upgrade).collect();
            let left = targets.iter().filter(|target| target.pool.sweep()).count();
            if left == 0 {
                break;
            }
        }
        gateway.sweeping.set(false);
    }
}

/// The client connections: how many there are, how many there may be, and how they are told to end.
pub struct Connections {
    max: usize,
    seats: RefCell<Slab<Option<Waker>>>,
    going: Cell<bool>,
    left: Notify,
}

impl Connections {
    fn new(max: usize) -> Self {
        Self { max, seats: RefCell::default(), going: Cell::new(false), left: Notify::new() }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.seats.borrow().len()
    }

    /// Waits until there may be one more.
    pub async fn wait_for_room(&self) {
        loop {
            let left = self.left.notified();
            if self.count() < self.max {
                return;
            }
            left.await;
        }
    }

    /// Waits until there are none.
    pub async fn wait_for_end(&self) {
        loop {
            let left = self.left.notified();
            if self.count() == 0 {
                return;
            }
            left.await;
        }
    }

    /// Counts one in until the seat is dropped.
    pub fn sit_down(&self) -> Seat<'_> {
        Seat { connections: self, index: self.seats.borrow_mut().insert(None) }
    }

    fn go(&self) {
        self.going.set(true);
        for (_, waker) in &mut *self.seats.borrow_mut() {
            if let Some(waker) = waker.take() {
                waker.wake();
            }
        }
    }
}

/// A connection's part in [`Connections`].
pub struct Seat<'a> {
    connections: &'a Connections,
    index: usize,
}

impl Seat<'_> {
    /// Whether the gateway is going; if not, the task is woken when it does.
    pub fn is_going(&self, cx: &Context<'_>) -> bool {
        let going = self.connections.going.get();
        if !going && let Some(seat @ None) = self.connections.seats.borrow_mut().get_mut(self.index) {
            *seat = Some(cx.waker().clone());
        }
        going
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.connections.seats.borrow_mut().remove(self.index);
        self.connections.left.notify_waiters();
    }
}

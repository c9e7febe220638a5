//! The gateway as a whole: the table in force and what was made of it. All workers share it. Changes happen on
//! the first worker, and what a request has been routed to stays what it was.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use tokio::net::TcpStream;

use super::backend::Backend;
use super::common::Common;
use super::connections::Seat;
use super::exits::{Exits, Watch};
use super::listen::{self, Face, Listening};
use super::pools;
use super::route::{Route, Routes};
use super::workers::Workers;
use crate::observe::events::{Event, Kind};
use crate::sync::lock;
use crate::table::{self, Table};

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
    /// What its services, listeners and requests have in common.
    pub common: Arc<Common>,
    /// The threads that serve clients.
    pub workers: Workers,
    /// The thread that sees processes exit.
    pub exits: Exits,
    table: Mutex<Arc<Table>>,
    listeners: Mutex<BTreeMap<SocketAddr, Arc<Listening>>>,
    backends: Mutex<HashMap<String, Arc<Backend>>>,
    /// By instance and generation, for those of the table that are processes of this machine.
    watches: Mutex<HashMap<(String, u64), Watch>>,
    /// Instances of the table whose process is gone.
    exited: Mutex<HashSet<(String, u64)>>,
    /// Sockets of a predecessor that listen already.
    inherited: Mutex<BTreeMap<SocketAddr, std::net::TcpListener>>,
}

impl Gateway {
    /// A gateway that answers nowhere yet, for at most `connections_max` clients at a time, on so many workers.
    ///
    /// # Errors
    /// The kernel's, when a worker cannot be started.
    pub fn new(connections_max: usize, workers: usize) -> io::Result<Arc<Self>> {
        let common = Common::new(connections_max, workers);
        tokio::task::spawn_local(pools::sweep(common.retirements()));
        Ok(Arc::new(Self {
            workers: Workers::start(workers, &common)?,
            exits: Exits::start()?,
            common,
            table: Mutex::default(),
            listeners: Mutex::default(),
            backends: Mutex::default(),
            watches: Mutex::default(),
            exited: Mutex::default(),
            inherited: Mutex::default(),
        }))
    }

    /// The table in force.
    pub fn table(&self) -> Arc<Table> {
        Arc::clone(&lock(&self.table))
    }

    /// Follows a table: every request dispatched from the return on does.
    ///
    /// # Errors
    /// The listeners that cannot be bound; the table in force is the old one then.
    pub fn follow(self: &Arc<Self>, table: Table) -> Result<(), Vec<Unbound>> {
        let (faces, faults) = self.faces(&table);
        let unbound = if faults.is_empty() { self.bind(&table) } else { faults };
        if !unbound.is_empty() {
            return Err(unbound);
        }
        self.apply(table, &faces);
        Ok(())
    }

    /// Follows a table as far as its listeners can be bound; gives those that cannot. For the start, when the
    /// last gateway's sockets may not be gone yet.
    pub fn follow_what_binds(self: &Arc<Self>, table: Table) -> Vec<Unbound> {
        let (faces, mut unbound) = self.faces(&table);
        unbound.extend(faces.keys().filter_map(|address| self.bind_one(*address).err()));
        self.apply(table, &faces);
        unbound
    }

    /// Tries again to bind a listener of the table in force; true when that is done with.
    pub fn bind_late(self: &Arc<Self>, address: SocketAddr) -> bool {
        let table = self.table();
        let wanted = table.listeners.iter().any(|listener| listener.address == address);
        if !wanted || lock(&self.listeners).contains_key(&address) {
            return true;
        }
        let (faces, _) = self.faces(&table);
        let bound = faces.contains_key(&address) && self.bind_one(address).is_ok();
        if bound {
            self.route(&table, &faces);
        }
        bound
    }

    /// Takes no more connections; those there end with their current answer.
    pub fn go(&self) {
        for listening in lock(&self.listeners).values() {
            listening.stop_accepting();
        }
        self.common.connections.go();
    }

    /// Whether the process of an instance of the table is known to be gone.
    pub fn has_exited(&self, id: &str, generation: u64) -> bool {
        lock(&self.exited).contains(&(id.to_owned(), generation))
    }

    /// The process of an instance is gone.
    pub fn exited(&self, service: &str, id: &str, generation: u64, pid: i32) {
        if !lock(&self.exited).insert((id.to_owned(), generation)) {
            return;
        }
        let backend = lock(&self.backends).get(service).cloned();
        if let Some(backend) = backend {
            backend.drop_exited(id, generation);
        }
        self.common.events.tell(&Event {
            kind: Kind::TargetExited,
            service,
            instance: Some(id),
            generation: Some(generation),
            reason: &format!("process {pid} exited"),
        });
    }

    /// Uses these sockets, which listen already, where the table wants their addresses.
    pub fn inherit(&self, sockets: BTreeMap<SocketAddr, std::net::TcpListener>) {
        *lock(&self.inherited) = sockets;
    }

    /// The listening sockets once more, by address, for a successor.
    ///
    /// # Errors
    /// The kernel's: there are no more file descriptors.
    pub fn share_sockets(&self) -> io::Result<Vec<(SocketAddr, OwnedFd)>> {
        let listeners = lock(&self.listeners);
        let shared = listeners.values().map(|listening| Ok(listening.share()?.map(|fd| (listening.address, fd))));
        shared.filter_map(io::Result::transpose).collect()
    }

    /// Leaves the addresses to a successor. Connections end with their next answer, without being cut off.
    pub fn leave(&self) {
        for listening in lock(&self.listeners).values() {
            listening.leave();
        }
    }

    /// A service.
    pub fn backend(&self, name: &str) -> Option<Arc<Backend>> {
        lock(&self.backends).get(name).cloned()
    }

    /// The services by name.
    pub fn backends(&self) -> Vec<Arc<Backend>> {
        let mut backends: Vec<_> = lock(&self.backends).values().cloned().collect();
        backends.sort_by(|a, b| a.name().cmp(b.name()));
        backends
    }

    /// Binds the listeners of a table that are not bound; on failure all is as before.
    fn bind(self: &Arc<Self>, table: &Table) -> Vec<Unbound> {
        let missing: Vec<SocketAddr> = {
            let bound = lock(&self.listeners);
            table.listeners.iter().map(|listener| listener.address).filter(|a| !bound.contains_key(a)).collect()
        };
        let given_up = self.give_up_in_the_way(table, &missing);
        let unbound: Vec<_> = missing.iter().filter_map(|address| self.bind_one(*address).err()).collect();
        if !unbound.is_empty() {
            for address in &missing {
                if let Some(listening) = lock(&self.listeners).remove(address) {
                    listening.close();
                }
            }
            for address in given_up {
                if let Err(Unbound { address, reason }) = self.bind_one(address) {
                    eprintln!("gateway: cannot listen at {address} again: {reason}");
                }
            }
            let table = self.table();
            self.route(&table, &self.faces(&table).0);
        }
        unbound
    }

    /// An address that is going may stand in the way of one that comes: 127.0.0.1:80 of 0.0.0.0:80.
    fn give_up_in_the_way(&self, table: &Table, missing: &[SocketAddr]) -> Vec<SocketAddr> {
        let stays = |address: &SocketAddr| table.listeners.iter().any(|listener| listener.address == *address);
        let mut listeners = lock(&self.listeners);
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

    fn bind_one(self: &Arc<Self>, address: SocketAddr) -> Result<(), Unbound> {
        if lock(&self.listeners).contains_key(&address) {
            return Ok(());
        }
        let inherited = lock(&self.inherited).remove(&address);
        let listening = inherited
            .map_or_else(|| listen::bind(address), Ok)
            .and_then(|socket| Listening::start(&self.common, address, socket, self.server()))
            .map_err(|reason| Unbound { address, reason })?;
        lock(&self.listeners).insert(address, listening);
        Ok(())
    }

    /// Has a connection that was accepted served.
    fn server(self: &Arc<Self>) -> impl Fn(Seat, Arc<Listening>, TcpStream, SocketAddr) + use<> {
        let gateway = Arc::clone(self);
        move |seat, listening, stream, peer| gateway.workers.serve(seat, listening, stream, peer)
    }

    fn apply(self: &Arc<Self>, table: Table, faces: &BTreeMap<SocketAddr, Face>) {
        self.forget_what_is_gone(&table);
        self.common.access_log.follow(table.access_log.as_ref());
        for (name, wanted) in &table.services {
            let known = lock(&self.backends).get(name).cloned();
            let backend = known.unwrap_or_else(|| {
                let backend = Backend::new(Arc::clone(&self.common), name, wanted);
                lock(&self.backends).insert(name.clone(), Arc::clone(&backend));
                backend
            });
            backend.follow(wanted, |target| self.has_exited(&target.id, target.generation));
            for target in &wanted.targets {
                self.watch(name, target);
            }
        }
        for backend in self.backends() {
            let mirror = table.services.get(backend.name()).and_then(|wanted| wanted.mirror.as_ref());
            backend.copy_to(mirror.and_then(|mirror| self.backend(&mirror.service)).as_ref());
        }
        self.route(&table, faces);
        *lock(&self.table) = Arc::new(table);
    }

    /// Drops what the table does not name any more: services with their targets, watches, addresses.
    fn forget_what_is_gone(self: &Arc<Self>, table: &Table) {
        let named: HashSet<(&str, u64)> = table
            .services
            .values()
            .flat_map(|backend| &backend.targets)
            .map(|target| (target.id.as_str(), target.generation))
            .collect();
        lock(&self.exited).retain(|(id, generation)| named.contains(&(id.as_str(), *generation)));
        lock(&self.watches).retain(|(id, generation), _| named.contains(&(id.as_str(), *generation)));
        let gone: Vec<_> = lock(&self.backends).extract_if(|name, _| !table.services.contains_key(name)).collect();
        for (_, backend) in gone {
            backend.follow(&table::Backend::default(), |_| false);
        }
        lock(&self.listeners).retain(|address, listening| {
            let stays = table.listeners.iter().any(|listener| listener.address == *address);
            if !stays {
                listening.close();
            }
            stays
        });
    }

    fn watch(self: &Arc<Self>, service: &str, target: &table::Target) {
        let instance = (target.id.clone(), target.generation);
        if self.has_exited(&target.id, target.generation) {
            // It may have exited while the table was being followed: then nothing was there to be dropped yet.
            if let Some(backend) = self.backend(service) {
                backend.drop_exited(&target.id, target.generation);
            }
            return;
        }
        if lock(&self.watches).contains_key(&instance) {
            return;
        }
        let (gateway, name) = (Arc::clone(self), service.to_owned());
        let (id, generation) = (target.id.clone(), target.generation);
        let gone = move |pid| gateway.exited(&name, &id, generation, pid);
        if let Some(watch) = self.exits.watch(target, gone) {
            lock(&self.watches).insert(instance, watch);
        }
    }

    /// How clients are to be met at a table's listeners, and where that cannot be.
    fn faces(&self, table: &Table) -> (BTreeMap<SocketAddr, Face>, Vec<Unbound>) {
        let listeners = lock(&self.listeners);
        let (mut faces, mut faults) = (BTreeMap::new(), Vec::new());
        for wanted in &table.listeners {
            let known = listeners.get(&wanted.address).map(|listening| lock(&listening.face).clone());
            match Face::try_new(wanted, known.as_ref()) {
                Ok(face) => drop(faces.insert(wanted.address, face)),
                Err(fault) => faults.push(Unbound { address: wanted.address, reason: io::Error::other(fault) }),
            }
        }
        (faces, faults)
    }

    /// Gives every bound listener its rules and its face.
    fn route(&self, table: &Table, faces: &BTreeMap<SocketAddr, Face>) {
        let (listeners, backends) = (lock(&self.listeners), lock(&self.backends));
        for wanted in &table.listeners {
            let Some(listening) = listeners.get(&wanted.address) else { continue };
            let rules = wanted.rules.iter().filter_map(|rule| {
                let backend = backends.get(&rule.service)?;
                Some(Route::new(rule, Arc::clone(backend)))
            });
            *lock(&listening.routes) = Arc::new(Routes::new(rules.collect()));
            if let Some(face) = faces.get(&wanted.address) {
                *lock(&listening.face) = face.clone();
            }
        }
    }
}

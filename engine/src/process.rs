//! The gateway as a process, from the table on disk to the last answer.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, flock};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit, umask};
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::control::{api, keep};
use crate::handover::{self, Inherited, succession};
use crate::proxy::gateway::Gateway;
use crate::proxy::workers::{self, WORKERS_MAX, suitable};

/// How long answers may take to end once the gateway is told to stop.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// Pauses between tries to bind an address that is taken at the start.
const REBIND_FIRST: Duration = Duration::from_millis(20);
const REBIND_MAX: Duration = Duration::from_secs(1);
/// Client connections at once, where file descriptors allow so many.
const CONNECTIONS_MAX: usize = 16_384;
/// File descriptors kept for all that is not a client and its instance: pidfds, listeners, the control socket.
const DESCRIPTORS_KEPT: u64 = 2048;

/// How a gateway is to run.
pub struct Plan {
    /// Where it answers the node.
    pub control_socket: PathBuf,
    /// Where it keeps the last table.
    pub table_path: PathBuf,
    /// The threads that serve clients; `None`: as many as suit the machine.
    pub workers: Option<usize>,
    /// Takes the place of the gateway that runs, if one does.
    pub take_over: bool,
}

/// Runs the gateway until SIGTERM or SIGINT, and then until what is in flight has ended, 10 s at most; or until a
/// successor has taken its place, and then until what is in flight has ended, an hour at most.
///
/// # Errors
/// In words: another gateway answers at the control socket, or the socket cannot be made.
pub fn run(plan: &Plan) -> Result<(), String> {
    let workers = plan.workers.unwrap_or_else(suitable);
    if !(1..=WORKERS_MAX).contains(&workers) {
        return Err(format!("{workers} workers; 1 to {WORKERS_MAX} would be right"));
    }
    // All that is made here, the control socket above all, is for this user alone.
    umask(Mode::RWXU.complement());
    let connections_max = raise_descriptors();
    let inherited = if plan.take_over { inherit(&plan.control_socket)? } else { None };
    let fault = |error: io::Error| format!("cannot start: {error}");
    workers::runtime().map_err(fault)?.block_on(async {
        let gateway = Gateway::new(connections_max, workers).map_err(fault)?;
        let served = serve(&gateway, plan, inherited).await;
        gateway.exits.stop();
        gateway.workers.stop();
        served
    })
}

/// What the gateway that runs leaves; `None`: none runs.
fn inherit(control_socket: &Path) -> Result<Option<Inherited>, String> {
    match handover::take(control_socket) {
        Ok(inherited) => Ok(Some(inherited)),
        Err(error) if [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused].contains(&error.kind()) => Ok(None),
        Err(error) => Err(format!("cannot take the place of the gateway that runs: {error}")),
    }
}

async fn serve(gateway: &Arc<Gateway>, plan: &Plan, inherited: Option<Inherited>) -> Result<(), String> {
    let path = &plan.control_socket;
    let fault = |error: io::Error| format!("cannot listen at {}: {error}", path.display());
    let mut terminate = signal(SignalKind::terminate()).map_err(fault)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(fault)?;
    let (lock, table, predecessor) = match inherited {
        Some(Inherited { lock, table, sockets, stream }) => {
            gateway.inherit(sockets);
            (lock, Ok(Some(table)), Some(stream))
        }
        None => (self::lock(path)?, keep::load(&plan.table_path), None),
    };
    match table {
        Ok(Some(table)) => {
            for unbound in gateway.follow_what_binds(table) {
                eprintln!("gateway: cannot listen at {} yet: {}", unbound.address, unbound.reason);
                tokio::task::spawn_local(bind_late(Arc::clone(gateway), unbound.address));
            }
        }
        Ok(None) => {}
        // The node's next table mends it.
        Err(fault) => eprintln!("gateway: the kept table is of no use: {fault}"),
    }
    gateway.inherit(BTreeMap::new());
    let control = bind_control(path).map_err(fault)?;
    let heirs = bind_control(&handover::path(path)).map_err(fault)?;
    let predecessor = match predecessor {
        Some(stream) => Some(succession::announce(gateway, stream).await.map_err(fault)?),
        None => None,
    };
    let api = Rc::new(api::Api { gateway: Arc::clone(gateway), table_path: plan.table_path.clone() });
    let successor = tokio::select! {
        () = api::serve(api, control) => None,
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        successor = succession::successor(gateway, &heirs, &lock) => Some(successor),
    };
    if let Some(successor) = successor {
        // From here on the lock is the successor's alone.
        drop(lock);
        tokio::select! {
            () = succession::depart(gateway, successor) => {}
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    } else {
        // The next gateway may take the sockets as soon as this one's lock is gone.
        let _ = std::fs::remove_file(path);
        let _ = std::fs::remove_file(handover::path(path));
        if let Some(predecessor) = &predecessor {
            predecessor.stop();
        }
    }
    gateway.go();
    // What has not ended by then is cut off.
    let _ = tokio::time::timeout(DRAIN_MAX, gateway.common.connections.wait_for_end()).await;
    Ok(())
}

async fn bind_late(gateway: Arc<Gateway>, address: SocketAddr) {
    let mut pause = REBIND_FIRST;
    while !gateway.bind_late(address) {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(REBIND_MAX);
    }
}

/// Holds the right to be the gateway at a socket; the kernel gives it back however this process ends.
fn lock(control_socket: &Path) -> Result<File, String> {
    let mut path = control_socket.as_os_str().to_owned();
    path.push(".lock");
    let path = PathBuf::from(path);
    let fault = |error: io::Error| format!("cannot lock {}: {error}", path.display());
    let file = OpenOptions::new().create(true).append(true).open(&path).map_err(fault)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            Err(format!("another gateway runs at {}; one is enough", control_socket.display()))
        }
        Err(error) => Err(fault(error.into())),
    }
}

/// Binds a socket in place of one that a dead gateway left behind, or that a predecessor is about to leave: the
/// lock says that there is no third. Whoever asks at the path gets either of them, and never none.
fn bind_control(path: &Path) -> io::Result<UnixListener> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    match std::fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&fresh)?;
    std::fs::rename(&fresh, path)?;
    Ok(listener)
}

/// Allows this process as many file descriptors as it may have; gives how many clients that is enough for.
fn raise_descriptors() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let current = if setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current };
    let spare = current.unwrap_or(u64::MAX).saturating_sub(DESCRIPTORS_KEPT) / 2;
    usize::try_from(spare).unwrap_or(usize::MAX).clamp(64, CONNECTIONS_MAX)
}

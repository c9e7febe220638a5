//! The gateway as a process, from the table on disk to the last answer.

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

/// Runs the gateway until SIGTERM or SIGINT, and then until what is in flight has ended, 10 s at most. `workers`:
/// the threads that serve clients; `None`: as many as suit the machine.
///
/// # Errors
/// In words: another gateway answers at the control socket, or the socket cannot be made.
pub fn run(control_socket: &Path, table_path: &Path, workers: Option<usize>) -> Result<(), String> {
    let workers = workers.unwrap_or_else(suitable);
    if !(1..=WORKERS_MAX).contains(&workers) {
        return Err(format!("{workers} workers; 1 to {WORKERS_MAX} would be right"));
    }
    // All that is made here, the control socket above all, is for this user alone.
    umask(Mode::RWXU.complement());
    let connections_max = raise_descriptors();
    let _lock = lock(control_socket)?;
    let fault = |error: io::Error| format!("cannot start: {error}");
    workers::runtime().map_err(fault)?.block_on(async {
        let gateway = Gateway::new(connections_max, workers).map_err(fault)?;
        let served = serve(&gateway, control_socket.to_owned(), table_path.to_owned()).await;
        gateway.workers.stop();
        served
    })
}

async fn serve(gateway: &Arc<Gateway>, control_socket: PathBuf, table_path: PathBuf) -> Result<(), String> {
    let fault = |error: io::Error| format!("cannot listen at {}: {error}", control_socket.display());
    let mut terminate = signal(SignalKind::terminate()).map_err(fault)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(fault)?;
    match keep::load(&table_path) {
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
    let control = bind_control(&control_socket).map_err(fault)?;
    let api = Rc::new(api::Api { gateway: Arc::clone(gateway), table_path });
    tokio::select! {
        () = api::serve(api, control) => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    // The next gateway may take the socket as soon as this one's lock is gone.
    let _ = std::fs::remove_file(&control_socket);
    gateway.go();
    // What has not ended by then is cut off.
    let _ = tokio::time::timeout(DRAIN_MAX, gateway.connections.wait_for_end()).await;
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

/// Binds the control socket in place of one that a dead gateway left behind; the lock says that it is dead.
fn bind_control(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => UnixListener::bind(path),
    }
}

/// Allows this process as many file descriptors as it may have; gives how many clients that is enough for.
fn raise_descriptors() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let current = if setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current };
    let spare = current.unwrap_or(u64::MAX).saturating_sub(DESCRIPTORS_KEPT) / 2;
    usize::try_from(spare).unwrap_or(usize::MAX).clamp(64, CONNECTIONS_MAX)
}

//! The threads that serve clients. The first is the one that accepts and listens to the node; the others are
//! given connections. Each has a runtime of its own and never gives a connection away; what they share (queues,
//! places, routes, counts) is shared by [`super::gateway::Gateway`], so that a queue is one queue however many
//! workers there are.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use tokio::net::TcpStream;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;

use super::common::Common;
use super::connection;
use super::connections::Seat;
use super::listen::Listening;
use super::pools;
use crate::sync::lock;

/// One worker for each of so many cores: one carries more than the instances that share its machine can take,
/// and one alone hands over nothing.
const CORES_EACH: usize = 4;
/// Largest number of workers.
pub const WORKERS_MAX: usize = 64;

/// As many workers as suit this machine.
pub fn suitable() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (cores / CORES_EACH).clamp(1, WORKERS_MAX)
}

/// The runtime of a worker.
///
/// # Errors
/// The kernel's, most often that there are no more file descriptors.
pub fn runtime() -> io::Result<LocalRuntime> {
    Builder::new_current_thread().enable_all().build_local(LocalOptions::default())
}

/// A connection on its way to its worker. Its number in [`Seat`] keeps these bounded.
struct Newcomer {
    seat: Seat,
    listening: Arc<Listening>,
    stream: std::net::TcpStream,
    peer: SocketAddr,
}

/// All workers but the first.
#[derive(Default)]
pub struct Workers(Mutex<Vec<Worker>>);

struct Worker {
    newcomers: UnboundedSender<Newcomer>,
    thread: JoinHandle<()>,
}

impl Workers {
    /// Starts all but the first of `count` workers.
    ///
    /// # Errors
    /// The kernel's; those that were started end.
    pub fn start(count: usize, common: &Common) -> io::Result<Self> {
        let started: io::Result<Vec<_>> = (1..count).map(|number| start(number, common.retirements())).collect();
        started.map(|workers| Self(Mutex::new(workers)))
    }

    /// Serves a connection on the worker that its seat names. To be called on the first.
    pub fn serve(&self, seat: Seat, listening: Arc<Listening>, stream: TcpStream, peer: SocketAddr) {
        if seat.worker == 0 {
            return connection::serve(seat, listening, stream, peer);
        }
        let workers = lock(&self.0);
        // A socket that the kernel will not give up is closed here, as if the client had come too late; and so
        // is one for a worker that has ended, which happens only at the end of the process.
        if let (Ok(stream), Some(worker)) = (stream.into_std(), workers.get(seat.worker - 1)) {
            let _ = worker.newcomers.send(Newcomer { seat, listening, stream, peer });
        }
    }

    /// Ends the workers with whatever they still carry.
    pub fn stop(&self) {
        let workers = std::mem::take(&mut *lock(&self.0));
        let threads: Vec<_> = workers.into_iter().map(|worker| worker.thread).collect();
        for thread in threads {
            // A worker that panicked has said so on stderr.
            let _ = thread.join();
        }
    }
}

fn start(number: usize, retired: watch::Receiver<u64>) -> io::Result<Worker> {
    let (newcomers, received) = unbounded_channel();
    let runtime = move || match runtime() {
        Ok(runtime) => runtime.block_on(work(received, retired)),
        Err(error) => eprintln!("gateway: worker {number} cannot start: {error}"),
    };
    let thread = std::thread::Builder::new().name(format!("unisono-gw-{number}")).spawn(runtime)?;
    Ok(Worker { newcomers, thread })
}

async fn work(mut newcomers: UnboundedReceiver<Newcomer>, retired: watch::Receiver<u64>) {
    tokio::task::spawn_local(pools::sweep(retired));
    while let Some(Newcomer { seat, listening, stream, peer }) = newcomers.recv().await {
        match TcpStream::from_std(stream) {
            Ok(stream) => connection::serve(seat, listening, stream, peer),
            Err(error) => eprintln!("gateway: cannot serve {peer}: {error}"),
        }
    }
}

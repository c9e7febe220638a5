//! Sees the processes of instances exit, by pidfd: the kernel says so within a fraction of a millisecond, with
//! or without the node. A thread of its own waits for it, because on a worker the word would stand in line behind
//! every request that is ready to go on, and requests would be sent to the dead meanwhile.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::thread::JoinHandle;

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use super::turn;
use super::workers;
use crate::sync::lock;
use crate::table::Target;

/// What is known of a process at the moment its watch begins.
enum Watched {
    Running(OwnedFd),
    Gone,
}

/// The watch of one process: it ends when this is dropped.
#[derive(Debug)]
pub struct Watch(#[expect(dead_code, reason = "dropping it is what it is for")] oneshot::Sender<()>);

/// A watch on its way to the thread. The table bounds how many there are.
struct Task {
    id: String,
    pid: i32,
    gone: Box<dyn FnOnce(i32) + Send>,
    watched: Watched,
    given_up: oneshot::Receiver<()>,
}

/// The thread that waits for exits.
pub struct Exits(Mutex<Option<(UnboundedSender<Task>, JoinHandle<()>)>>);

impl Exits {
    /// Starts the thread.
    ///
    /// # Errors
    /// The kernel's: there are no more threads or file descriptors.
    pub fn start() -> io::Result<Self> {
        let (tasks, received) = unbounded_channel();
        let wait = move || {
            // It works for a few microseconds at a time. While all cores are busy, that is worth an early turn.
            turn::ask_for_short_slices();
            match workers::runtime() {
                Ok(runtime) => runtime.block_on(wait_for(received)),
                Err(error) => eprintln!("gateway: cannot watch processes: {error}"),
            }
        };
        let thread = std::thread::Builder::new().name("unisono-gw-exits".into()).spawn(wait)?;
        Ok(Self(Mutex::new(Some((tasks, thread)))))
    }

    /// Watches a target's process, if the table names one; `gone` is called with its pid when it is.
    pub fn watch(&self, target: &Target, gone: impl FnOnce(i32) + Send + 'static) -> Option<Watch> {
        let pid = target.pid?;
        let watched = begin(pid, target.start_time)
            .inspect_err(|error| {
                // Most often for want of file descriptors. Refused connections and the node's next table tell too.
                eprintln!("gateway: cannot watch process {pid} of instance {}: {error}", target.id);
            })
            .ok()?;
        let (watch, given_up) = oneshot::channel();
        let task = Task { id: target.id.clone(), pid, gone: Box::new(gone), watched, given_up };
        // The thread ends before the gateway only when the process ends.
        lock(&self.0).as_ref()?.0.send(task).ok()?;
        Some(Watch(watch))
    }

    /// Ends the thread and all watches.
    pub fn stop(&self) {
        if let Some((tasks, thread)) = lock(&self.0).take() {
            drop(tasks);
            // If it panicked, it has said so on stderr.
            let _ = thread.join();
        }
    }
}

async fn wait_for(mut tasks: UnboundedReceiver<Task>) {
    while let Some(task) = tasks.recv().await {
        tokio::task::spawn_local(wait_for_one(task));
    }
}

async fn wait_for_one(task: Task) {
    let Task { id, pid, gone, watched, given_up } = task;
    if let Watched::Running(fd) = watched {
        let registered = match register(fd) {
            Ok(registered) => registered,
            Err(error) => {
                eprintln!("gateway: cannot watch process {pid} of instance {id}: {error}");
                return;
            }
        };
        // A pidfd becomes readable once, at the exit; nothing is ever read.
        let exit = tokio::select! {
            exit = registered.readable() => exit,
            _ = given_up => return,
        };
        if exit.is_err() {
            return;
        }
    }
    gone(pid);
}

#[expect(unsafe_code, reason = "tokio has no safe way to wait for a file descriptor of a kind it does not know")]
fn register(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is open and owned by the OwnedFd, which the AsyncFd owns from here on, and which
    // gives the same descriptor whenever it is asked.
    let registered = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
    registered.map_err(io::Error::from)
}

/// Opens the pidfd first and compares the start time after, so that a reused pid cannot slip in between.
fn begin(pid: i32, start_time: Option<u64>) -> io::Result<Watched> {
    let Some(raw) = Pid::from_raw(pid) else { return Ok(Watched::Gone) };
    let fd = match pidfd_open(raw, PidfdFlags::NONBLOCK) {
        Ok(fd) => fd,
        Err(rustix::io::Errno::SRCH) => return Ok(Watched::Gone),
        Err(error) => return Err(error.into()),
    };
    let is_other = start_time.is_some_and(|wanted| read_start_time(pid) != Some(wanted));
    Ok(if is_other { Watched::Gone } else { Watched::Running(fd) })
}

/// Field 22 of /proc/PID/stat. The name in field 2 may hold anything, so counting begins behind its bracket.
fn read_start_time(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, behind_name) = stat.rsplit_once(')')?;
    behind_name.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_runs_and_another_start_time_is_another_process() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let started = read_start_time(pid);

        assert!(matches!(begin(pid, started), Ok(Watched::Running(_))));
        assert!(matches!(begin(pid, started.map(|time| time + 1)), Ok(Watched::Gone)));
    }

    #[test]
    fn a_child_that_has_been_waited_for_is_gone() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();

        assert!(matches!(begin(i32::try_from(child.id()).unwrap(), None), Ok(Watched::Gone)));
    }
}

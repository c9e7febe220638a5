//! Sees the processes of instances exit, by pidfd: the kernel says so within a fraction of a millisecond, with
//! or without the node.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::gateway::Gateway;
use crate::control::table::Target;

/// What is known of a process at the moment its watch begins.
enum Watched {
    Running(OwnedFd),
    Gone,
}

/// Watches a target's process in a task of its own, if the table names one.
pub fn watch(gateway: &Arc<Gateway>, service: &str, target: &Target) -> Option<tokio::task::AbortHandle> {
    let pid = target.pid?;
    let begun = begin(pid, target.start_time)
        .and_then(|watched| match watched {
            Watched::Running(fd) => register(fd).map(Some),
            Watched::Gone => Ok(None),
        })
        .inspect_err(|error| {
            // Most often for want of file descriptors. Refused connections and the node's next table tell too.
            eprintln!("gateway: cannot watch process {pid} of instance {}: {error}", target.id);
        })
        .ok()?;
    let (gateway, service) = (Arc::clone(gateway), service.to_owned());
    let (id, generation) = (target.id.clone(), target.generation);
    let task = tokio::task::spawn_local(async move {
        if let Some(fd) = begun {
            // A pidfd becomes readable once, at the exit; nothing is ever read.
            if fd.readable().await.is_err() {
                return;
            }
        }
        gateway.exited(&service, &id, generation, pid);
    });
    Some(task.abort_handle())
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

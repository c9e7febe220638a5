//! A gateway's place taken by the next one, without a connection refused or reset: the successor gets the
//! listening sockets themselves, the lock and the table over a Unix socket beside the control socket, serves,
//! says so, and only then does the predecessor stop accepting. What the predecessor still carries it tells the
//! successor until it ends, so that an instance counts as drained only when both have left it.
//!
//! What goes over the socket: from the predecessor descriptors, each message with one byte and the lock first;
//! then a line of JSON ([`Estate`]). From the successor the byte `R` once it serves. From then on the
//! predecessor's [`Remainder`](crate::proxy::accounts::Remainder)s, a line each. Either side's end before `R` leaves all as it was.

pub mod succession;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};

use crate::table::Table;

/// Longest silence of the other side in the middle of a handover.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest line that is taken in.
const LINE_MAX: u64 = 128 * 1024 * 1024;

/// What the successor gets, besides descriptors.
#[derive(Debug, Serialize, Deserialize)]
pub struct Estate {
    /// The table in force.
    pub table: Table,
    /// The addresses of the listening sockets, in the order in which they were sent.
    pub listeners: Vec<SocketAddr>,
}

/// All that a successor has been given.
pub struct Inherited {
    /// The right to be the gateway at the control socket.
    pub lock: File,
    /// The table in force.
    pub table: Table,
    /// Sockets that listen already.
    pub sockets: BTreeMap<SocketAddr, TcpListener>,
    /// To the predecessor.
    pub stream: UnixStream,
}

/// Where a gateway waits for its successor.
pub fn path(control_socket: &Path) -> PathBuf {
    let mut path = control_socket.as_os_str().to_owned();
    path.push(".handover");
    path.into()
}

/// Asks the gateway that runs for its place.
///
/// # Errors
/// No gateway waits there, or it did not keep to what the module says.
pub fn take(control_socket: &Path) -> io::Result<Inherited> {
    let stream = UnixStream::connect(path(control_socket))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut count = [0u8; 4];
    (&stream).read_exact(&mut count)?;
    let mut descriptors = (0..u32::from_be_bytes(count)).map(|_| receive(&stream));
    let lock = descriptors.next().ok_or_else(|| io::Error::other("no lock came"))??;
    let sockets = descriptors.collect::<io::Result<Vec<OwnedFd>>>()?;
    let estate: Estate = serde_json::from_str(&read_line(&stream)?).map_err(io::Error::other)?;
    if estate.listeners.len() != sockets.len() {
        return Err(io::Error::other("not every listener has a socket"));
    }
    let sockets = estate.listeners.into_iter().zip(sockets.into_iter().map(TcpListener::from)).collect();
    Ok(Inherited { lock: lock.into(), table: estate.table, sockets, stream })
}

/// Gives a successor everything, and waits until it serves. Blocks for 20 s at most.
///
/// # Errors
/// The successor went away or kept silent; nothing has changed then.
pub fn give(stream: &UnixStream, lock: BorrowedFd<'_>, sockets: &[OwnedFd], estate: &Estate) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let count = u32::try_from(sockets.len() + 1).map_err(io::Error::other)?;
    (&*stream).write_all(&count.to_be_bytes())?;
    for fd in std::iter::once(lock).chain(sockets.iter().map(AsFd::as_fd)) {
        send(stream, fd)?;
    }
    write_line(stream, estate)?;
    let mut ready = [0u8; 1];
    (&*stream).read_exact(&mut ready)?;
    if ready == *b"R" { Ok(()) } else { Err(io::Error::other("the successor did not say R")) }
}

/// Tells the predecessor that it may go.
///
/// # Errors
/// It is gone already.
pub fn say_ready(stream: &UnixStream) -> io::Result<()> {
    (&*stream).write_all(b"R")
}

/// Writes a value and a line's end.
///
/// # Errors
/// The other side is gone, or took nothing for 10 s.
pub fn write_line(mut stream: &UnixStream, value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value).map_err(io::Error::other)?;
    line.push(b'\n');
    stream.write_all(&line)
}

/// Reads byte by byte's worth of buffer and no further than the line's end, since descriptors may follow it.
fn read_line(stream: &UnixStream) -> io::Result<String> {
    let mut line = String::new();
    // Nothing but the line comes before this side has answered, so the buffer takes nothing too much.
    BufReader::new(stream.take(LINE_MAX)).read_line(&mut line)?;
    Ok(line)
}

fn send(stream: &UnixStream, fd: BorrowedFd<'_>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fds = [fd];
    ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    sendmsg(stream, &[IoSlice::new(b"F")], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn receive(stream: &UnixStream) -> io::Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0u8; 1];
    let received = recvmsg(stream, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    if received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(io::Error::other("a descriptor was lost: too many files are open"));
    }
    let mut rights = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    let fd = rights.next().and_then(|mut fds| fds.next());
    fd.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_and_table_arrive_and_the_socket_still_listens() {
        let folder = std::env::temp_dir().join(format!("uni-handover-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let control = folder.join("g");
        let waiting = std::os::unix::net::UnixListener::bind(path(&control)).unwrap();
        let lock = File::create(folder.join("lock")).unwrap();
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let estate = Estate { table: Table { version: 7, ..Table::default() }, listeners: vec![address] };

        let giving = std::thread::spawn(move || {
            let (stream, _) = waiting.accept().unwrap();
            give(&stream, lock.as_fd(), &[socket.into()], &estate)
        });
        let inherited = take(&control).unwrap();
        say_ready(&inherited.stream).unwrap();
        giving.join().unwrap().unwrap();
        std::fs::remove_dir_all(&folder).unwrap();

        assert_eq!(inherited.table.version, 7);
        assert!(std::net::TcpStream::connect(address).is_ok(), "its only owner now is the successor");
    }

    #[test]
    fn a_successor_that_goes_away_is_an_error_and_not_a_departure() {
        let (mine, theirs) = UnixStream::pair().unwrap();
        let lock = File::open("/dev/null").unwrap();
        drop(theirs);

        let given = give(&mine, lock.as_fd(), &[], &Estate { table: Table::default(), listeners: Vec::new() });

        assert!(given.is_err());
    }
}

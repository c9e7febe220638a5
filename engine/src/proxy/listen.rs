//! The addresses at which the gateway answers: bound, accepted from, given up.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use super::common::Common;
use super::connections::Seat;
use super::route::Routes;
use super::tls::Certificates;
use crate::sync::lock;
use crate::table;

/// Connections that the kernel holds until they are accepted.
const BACKLOG: i32 = 4096;
/// Pause after a failed accept, which is most often for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How clients are met at an address.
#[derive(Clone, Default)]
pub struct Face {
    /// What is spoken there.
    pub mode: table::Mode,
    /// `None`: clear text.
    pub certificates: Option<Arc<Certificates>>,
}

impl Face {
    /// As the table says; certificates that are known already are not read again.
    ///
    /// # Errors
    /// What is wrong with a certificate's files.
    pub fn try_new(wanted: &table::Listener, known: Option<&Self>) -> Result<Self, String> {
        let known = known.filter(|known| known.mode == wanted.mode).and_then(|known| known.certificates.as_ref());
        let certificates = match (&wanted.tls, known) {
            (None, _) => None,
            (Some(tls), Some(known)) if known.wanted == *tls => Some(Arc::clone(known)),
            (Some(tls), _) => Some(Certificates::read(tls, wanted.mode == table::Mode::Http)?),
        };
        Ok(Self { mode: wanted.mode, certificates })
    }
}

/// A bound address.
pub struct Listening {
    /// The address, as the table names it.
    pub address: SocketAddr,
    /// What it has in common with all others.
    pub common: Arc<Common>,
    /// Where its requests go; replaced whole.
    pub routes: Mutex<Arc<Routes>>,
    /// How clients are met that come from now on.
    pub face: Mutex<Face>,
    /// The table does not name the address any more: its connections end with their next answer.
    pub closed: AtomicBool,
    /// A successor accepts here now: connections end with their next answer.
    left: AtomicBool,
    /// `None` once no more connections are taken; the address is free from that moment on.
    socket: Mutex<Option<TcpListener>>,
    accepting: Mutex<Option<AbortHandle>>,
}

impl Listening {
    /// Takes connections from a bound socket from now on, each with a seat, and has them served.
    ///
    /// # Errors
    /// The kernel's; the address is free again then.
    pub fn start(
        common: &Arc<Common>,
        address: SocketAddr,
        socket: std::net::TcpListener,
        serve: impl Fn(Seat, Arc<Self>, TcpStream, SocketAddr) + 'static,
    ) -> io::Result<Arc<Self>> {
        let socket = Mutex::new(Some(TcpListener::from_std(socket)?));
        let listening = Arc::new(Self {
            address,
            common: Arc::clone(common),
            routes: Mutex::default(),
            face: Mutex::default(),
            closed: AtomicBool::new(false),
            left: AtomicBool::new(false),
            socket,
            accepting: Mutex::new(None),
        });
        let task = tokio::task::spawn_local(accept(Arc::clone(&listening), serve));
        *lock(&listening.accepting) = Some(task.abort_handle());
        Ok(listening)
    }

    /// Whether the address was given up.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Gives the address up; connections there end with their next answer.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.stop_accepting();
    }

    /// Whether a connection's next answer is its last.
    pub fn ends_connections(&self) -> bool {
        self.left.load(Ordering::Acquire) || self.is_closed()
    }

    /// Leaves the address to a successor; connections there end with their next answer.
    pub fn leave(&self) {
        self.left.store(true, Ordering::Release);
        self.stop_accepting();
    }

    /// The socket once more, for a successor; `None`: it was given up.
    ///
    /// # Errors
    /// The kernel's: there are no more file descriptors.
    pub fn share(&self) -> io::Result<Option<OwnedFd>> {
        lock(&self.socket).as_ref().map(|socket| socket.as_fd().try_clone_to_owned()).transpose()
    }

    /// Takes no more connections; those there go on.
    pub fn stop_accepting(&self) {
        lock(&self.socket).take();
        if let Some(task) = lock(&self.accepting).take() {
            task.abort();
        }
    }
}

/// Binds an address without taking connections yet.
///
/// # Errors
/// The kernel's, for instance that another process has the address.
pub fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A gateway that has just died leaves connections behind that would keep the address for a minute.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

async fn accept(listening: Arc<Listening>, serve: impl Fn(Seat, Arc<Listening>, TcpStream, SocketAddr)) {
    loop {
        listening.common.connections.wait_for_room().await;
        let accepted = poll_fn(|cx| match &*lock(&listening.socket) {
            Some(socket) => socket.poll_accept(cx).map(Some),
            None => Poll::Ready(None),
        });
        match accepted.await {
            None => return,
            Some(Ok((stream, peer))) => {
                let seat = listening.common.connections.sit_down();
                serve(seat, Arc::clone(&listening), stream, peer);
            }
            Some(Err(error)) => {
                eprintln!("gateway: cannot accept at {}: {error}", listening.address);
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

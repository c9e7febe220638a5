//! How a way to an instance begins, and how a try on it fails, whatever is spoken there.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;

/// Longest wait for a connection: instances are near, and a full backlog shows as silence.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How a try ended without an answer's head.
pub enum Failed {
    /// Not a byte of the request went out, or the instance says that it has not looked at it.
    Unsent,
    /// The request, or part of it, went out; then the connection broke.
    Broken,
    /// What came back is not HTTP.
    Invalid,
}

/// Makes a connection to an instance, on which nothing has been said.
///
/// # Errors
/// The kernel's, or `TimedOut` after [`CONNECT_TIMEOUT`].
pub async fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

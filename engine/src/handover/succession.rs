//! Both sides of a handover as a running gateway takes part in them; what goes over the socket is the parent
//! module's.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::UnixListener;
use tokio::time::Instant;

use super::{Estate, give, say_ready, write_line};
use crate::proxy::accounts::Remainder;
use crate::proxy::gateway::Gateway;

/// How often the successor is told what is left, where that has changed.
const TELL_EACH: Duration = Duration::from_millis(50);
/// Longest wait for a predecessor to say what it carries; one that hangs must not keep this one from serving.
const FIRST_WORD_MAX: Duration = Duration::from_secs(2);
/// A connection without a request may stay for so long: its client may have sent one just now, and hears with
/// its answer that it is the last.
const IDLE_MAX: Duration = Duration::from_secs(75);
/// Longest time for the answers that a gateway still carries when its successor serves.
const ANSWERS_MAX: Duration = Duration::from_secs(3600);
/// What a successor says that is told to stop: the predecessor is to stop as well.
const STOP: u8 = b'S';

/// The gateway whose place was taken.
pub struct Predecessor(Rc<UnixStream>);

impl Predecessor {
    /// Has it stop, too.
    pub fn stop(&self) {
        // It may be gone long since.
        let _ = io::Write::write_all(&mut &*self.0, &[STOP]);
    }
}

/// Tells the predecessor that this gateway serves, and hears from it what it still carries: for the first time
/// before this returns, so that nobody takes an instance for drained that is not.
///
/// # Errors
/// It is gone, or there are no more file descriptors.
pub async fn announce(gateway: &Arc<Gateway>, stream: UnixStream) -> io::Result<Predecessor> {
    say_ready(&stream)?;
    let heard = stream.try_clone()?;
    heard.set_nonblocking(true)?;
    let heard = tokio::net::UnixStream::from_std(heard)?;
    let gateway = Arc::clone(gateway);
    let mut lines = BufReader::new(heard).lines();
    if let Ok(Ok(Some(line))) = tokio::time::timeout(FIRST_WORD_MAX, lines.next_line()).await
        && let Ok(remainder) = serde_json::from_str(&line)
    {
        gateway.common.accounts.told_remainder(remainder);
    }
    tokio::task::spawn_local(async move {
        while let Ok(Some(line)) = lines.next_line().await {
            if let Ok(remainder) = serde_json::from_str(&line) {
                gateway.common.accounts.told_remainder(remainder);
            }
        }
        gateway.common.accounts.told_remainder(Remainder::default());
    });
    Ok(Predecessor(Rc::new(stream)))
}

/// Waits for a successor that serves in this gateway's place. One that fails at it changes nothing.
pub async fn successor(gateway: &Arc<Gateway>, heirs: &UnixListener, lock: &File) -> UnixStream {
    loop {
        match hand_over(gateway, heirs, lock).await {
            Ok(stream) => return stream,
            Err(error) => {
                eprintln!("gateway: a successor failed: {error}");
                tokio::time::sleep(TELL_EACH).await;
            }
        }
    }
}

async fn hand_over(gateway: &Arc<Gateway>, heirs: &UnixListener, lock: &File) -> io::Result<UnixStream> {
    let (stream, _) = heirs.accept().await?;
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    let (listeners, sockets) = gateway.share_sockets()?.into_iter().unzip();
    let estate = Estate { table: (*gateway.table()).clone(), listeners };
    let lock = lock.as_fd().try_clone_to_owned()?;
    let giving = tokio::task::spawn_blocking(move || {
        let sockets: Vec<_> = sockets;
        give(&stream, lock.as_fd(), &sockets, &estate).map(|()| stream)
    });
    giving.await.map_err(io::Error::other)?
}

/// Leaves: no new connections, and until the last has ended the successor hears what is still in flight. Ends
/// then, after an hour, or when the successor says so.
pub async fn depart(gateway: &Arc<Gateway>, successor: UnixStream) {
    gateway.leave();
    gateway.common.events.close();
    let told_to_stop = told_to_stop(&successor);
    let telling = async {
        let (began, mut told) = (Instant::now(), None);
        loop {
            let remainder = gateway.common.accounts.remainder();
            if told.as_ref() != Some(&remainder) {
                // A successor that is gone needs to know nothing.
                let _ = write_line(&successor, &remainder);
                told = Some(remainder);
            }
            if gateway.common.connections.count() == 0 || began.elapsed() >= ANSWERS_MAX {
                return;
            }
            if began.elapsed() >= IDLE_MAX {
                gateway.go();
            }
            tokio::time::sleep(TELL_EACH).await;
        }
    };
    tokio::select! {
        () = telling => {}
        () = told_to_stop => {}
    }
}

async fn told_to_stop(successor: &UnixStream) {
    let heard = successor.try_clone().and_then(|heard| {
        heard.set_nonblocking(true)?;
        tokio::net::UnixStream::from_std(heard)
    });
    if let Ok(mut heard) = heard
        && matches!(heard.read_u8().await, Ok(STOP))
    {
        return;
    }
    // The successor's own end is no reason to break answers off.
    std::future::pending().await
}

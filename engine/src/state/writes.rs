//! Writes on their way to the store: gathered here, taken by Python in one go, answered in one go.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::oneshot;

/// Most writes, and bytes of them, that wait; more go to the API, which refuses or not.
const WAITING_MAX: usize = 4096;
const BYTES_MAX: usize = 16 * 1024 * 1024;

/// What became of a write: its revision, or a status with problem details.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Durable at this revision.
    Done(u64),
    /// It failed.
    Failed(u16, Bytes),
}

/// A put that waits: its number here, the store's key, and the value.
pub type Put = (u64, Bytes, Bytes);

#[derive(Default)]
struct State {
    waiting: Vec<Put>,
    bytes: usize,
    asked: HashMap<u64, oneshot::Sender<Answer>>,
    last: u64,
    closed: bool,
}

/// The queue; its descriptor is readable while something waits.
pub struct Writes {
    state: Mutex<State>,
    signal: OwnedFd,
}

impl Writes {
    /// An empty queue.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub fn try_new() -> std::io::Result<Self> {
        let signal = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { state: Mutex::default(), signal })
    }

    /// The descriptor to wait at.
    pub fn descriptor(&self) -> RawFd {
        self.signal.as_fd().as_raw_fd()
    }

    /// Queue a put; `None`: too much waits already, or nobody takes any more, and nothing was queued.
    pub fn put(&self, key: Bytes, value: Bytes) -> Option<oneshot::Receiver<Answer>> {
        let mut state = self.lock();
        if state.closed || state.waiting.len() >= WAITING_MAX || state.bytes + value.len() > BYTES_MAX {
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        state.last += 1;
        let number = state.last;
        state.bytes += value.len();
        state.waiting.push((number, key, value));
        state.asked.insert(number, sender);
        if state.waiting.len() == 1 {
            // It can fail only when the count is at its highest, and then it is readable already.
            let _ = rustix::io::write(&self.signal, &1_u64.to_ne_bytes());
        }
        Some(receiver)
    }

    /// All that waits, which waits no more.
    pub fn take(&self) -> Vec<Put> {
        let mut state = self.lock();
        let _ = rustix::io::read(&self.signal, &mut [0; 8]);
        state.bytes = 0;
        std::mem::take(&mut state.waiting)
    }

    /// Tell those who asked.
    pub fn answer(&self, answers: impl IntoIterator<Item = (u64, Answer)>) {
        let mut state = self.lock();
        for (number, answer) in answers {
            if let Some(sender) = state.asked.remove(&number) {
                // Who has gone meanwhile does not hear it; what was done is done.
                let _ = sender.send(answer);
            }
        }
    }

    /// Take no more; what was not answered never will be.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.asked.clear();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_write_gets_its_own_answer() {
        let writes = Writes::try_new().expect("a descriptor");
        let mut first = writes.put("a".into(), "1".into()).expect("room");
        let mut second = writes.put("b".into(), "2".into()).expect("room");

        let taken = writes.take();
        writes.answer(taken.iter().map(|(number, ..)| (*number, Answer::Done(*number + 10))).rev());

        assert_eq!((Ok(Answer::Done(11)), Ok(Answer::Done(12))), (first.try_recv(), second.try_recv()));
        assert!(writes.take().is_empty());
    }

    #[test]
    fn more_than_fits_is_not_queued() {
        let writes = Writes::try_new().expect("a descriptor");
        let _waiting: Vec<_> = (0..WAITING_MAX).map(|_| writes.put("a".into(), Bytes::new())).collect();

        assert!(writes.put("a".into(), Bytes::new()).is_none());
    }

    #[test]
    fn a_write_that_is_never_answered_is_told_so() {
        let writes = Writes::try_new().expect("a descriptor");
        let mut waiting = writes.put("a".into(), Bytes::new()).expect("room");

        writes.close();

        assert_eq!(Err(oneshot::error::TryRecvError::Closed), waiting.try_recv());
        assert!(writes.put("a".into(), Bytes::new()).is_none());
    }
}

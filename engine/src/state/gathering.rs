//! What Python is asked for: gathered here, taken in one go, answered in one go, so that it runs once for many.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::sync::lock;
use bytes::Bytes;
use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::oneshot;

/// Most requests, and bytes of them, that wait.
const WAITING_MAX: usize = 4096;
const BYTES_MAX: usize = 16 * 1024 * 1024;

/// What became of a request: the number that it asked for, or a status with problem details.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The revision of a write that is durable; the first of some timestamps.
    Done(u64),
    /// It failed.
    Failed(u16, Bytes),
}

/// A put: the store's key, and the value.
pub type Put = (Bytes, Bytes);
/// Timestamps: the prefix of their namespace, and how many.
pub type Timestamps = (Arc<str>, u32);

struct State<Asked> {
    waiting: Vec<(u64, Asked)>,
    bytes: usize,
    asked: HashMap<u64, oneshot::Sender<Answer>>,
    last: u64,
    closed: bool,
}

/// The queue; its descriptor is readable while something waits.
pub struct Gathering<Asked> {
    state: Mutex<State<Asked>>,
    signal: OwnedFd,
}

impl<Asked> Gathering<Asked> {
    /// An empty queue.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub fn try_new() -> std::io::Result<Self> {
        let signal = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let state = State { waiting: Vec::new(), bytes: 0, asked: HashMap::new(), last: 0, closed: false };
        Ok(Self { state: Mutex::new(state), signal })
    }

    /// The descriptor to wait at.
    pub fn descriptor(&self) -> RawFd {
        self.signal.as_fd().as_raw_fd()
    }

    /// Queue a request of so many bytes, under a number of its own; `None`: too much waits already, or nobody takes
    /// any more, and nothing was queued.
    pub fn ask(&self, asked: Asked, bytes: usize) -> Option<oneshot::Receiver<Answer>> {
        let mut state = self.lock();
        if state.closed || state.waiting.len() >= WAITING_MAX || state.bytes + bytes > BYTES_MAX {
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        state.last += 1;
        let number = state.last;
        state.bytes += bytes;
        state.waiting.push((number, asked));
        state.asked.insert(number, sender);
        if state.waiting.len() == 1 {
            // It can fail only when the count is at its highest, and then it is readable already.
            let _ = rustix::io::write(&self.signal, &1_u64.to_ne_bytes());
        }
        Some(receiver)
    }

    /// All that waits, which waits no more.
    pub fn take(&self) -> Vec<(u64, Asked)> {
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

    fn lock(&self) -> MutexGuard<'_, State<Asked>> {
        lock(&self.state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_gets_its_own_answer() {
        let gathering = Gathering::try_new().expect("a descriptor");
        let mut first = gathering.ask("a", 1).expect("room");
        let mut second = gathering.ask("b", 1).expect("room");

        let taken = gathering.take();
        gathering.answer(taken.iter().map(|(number, ..)| (*number, Answer::Done(*number + 10))).rev());

        assert_eq!((Ok(Answer::Done(11)), Ok(Answer::Done(12))), (first.try_recv(), second.try_recv()));
        assert!(gathering.take().is_empty());
    }

    #[test]
    fn more_than_fits_is_not_queued() {
        let gathering = Gathering::try_new().expect("a descriptor");
        let _waiting: Vec<_> = (0..WAITING_MAX).map(|_| gathering.ask("a", 0)).collect();

        assert!(gathering.ask("a", 0).is_none());
    }

    #[test]
    fn a_request_that_is_never_answered_is_told_so() {
        let gathering = Gathering::try_new().expect("a descriptor");
        let mut waiting = gathering.ask("a", 0).expect("room");

        gathering.close();

        assert_eq!(Err(oneshot::error::TryRecvError::Closed), waiting.try_recv());
        assert!(gathering.ask("a", 0).is_none());
    }
}

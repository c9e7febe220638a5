//! The data plane of shared state for Python, which feeds it and takes what it has gathered.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use bytes::Bytes;
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::{PyBackedBytes, PyBackedStr};
use pyo3::types::PyBytes;
use tokio::sync::watch;

use crate::state::gathering::{Answer, Gathering};
use crate::state::replica::{Entry, Replica};
use crate::state::serve::{self, Shared};
use crate::state::token::Signer;
use crate::sync::lock;

/// Serves shared state at a Unix socket in a thread of its own; see the stub.
#[pyclass(frozen, module = "unisono._engine")]
pub struct StateServer {
    shared: Arc<Shared>,
    ending: watch::Sender<bool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

type Kept = (PyBackedBytes, u64, u64);

#[pymethods]
impl StateServer {
    #[new]
    fn new(listener: i32, behind: PathBuf, secret: Vec<u8>) -> PyResult<Self> {
        let listener = serve::duplicate(listener).map_err(PyOSError::new_err)?;
        let shared = Arc::new(Shared {
            replica: Replica::default(),
            signer: Signer::try_new(secret).map_err(PyValueError::new_err)?,
            writes: Gathering::try_new().map_err(PyOSError::new_err)?,
            timestamps: Gathering::try_new().map_err(PyOSError::new_err)?,
            behind,
        });
        let (ending, ended) = watch::channel(false);
        let serving = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("unisono-state".into()).spawn(move || {
            if let Err(error) = serve::run(&serving, listener, ended) {
                eprintln!("state: the server has failed: {error}");
            }
        });
        let thread = Mutex::new(Some(thread.map_err(PyOSError::new_err)?));
        Ok(Self { shared, ending, thread })
    }

    fn learn(&self, credentials: &[u8], prefix: &str) {
        self.shared.replica.learn(credentials, prefix);
    }

    fn forget(&self) {
        self.shared.replica.forget();
    }

    fn apply(&self, changes: Vec<(PyBackedStr, Option<Kept>)>, revision: u64) {
        let changes = changes.into_iter().map(|(key, kept)| {
            let entry = kept.map(|(value, created, modified)| {
                let value = Bytes::copy_from_slice(&value);
                Entry { value, created, modified }
            });
            (Bytes::copy_from_slice(key.as_bytes()), entry)
        });
        self.shared.replica.apply(changes, revision);
    }

    fn writes_descriptor(&self) -> i32 {
        self.shared.writes.descriptor()
    }

    fn take_writes<'py>(&self, py: Python<'py>) -> Vec<(u64, String, Bound<'py, PyBytes>)> {
        let taken = self.shared.writes.take().into_iter();
        let text = |key: Bytes| String::from_utf8_lossy(&key).into_owned();
        taken.map(|(number, (key, value))| (number, text(key), PyBytes::new(py, &value))).collect()
    }

    fn done(&self, revisions: Vec<(u64, u64)>) {
        let answers = revisions.into_iter().map(|(number, revision)| (number, Answer::Done(revision)));
        self.shared.writes.answer(answers);
    }

    fn failed(&self, numbers: Vec<u64>, status: u16, problem: &[u8]) {
        let answer = Answer::Failed(status, Bytes::copy_from_slice(problem));
        self.shared.writes.answer(numbers.into_iter().map(|number| (number, answer.clone())));
    }

    fn timestamps_descriptor(&self) -> i32 {
        self.shared.timestamps.descriptor()
    }

    fn take_timestamps(&self) -> Vec<(u64, String, u32)> {
        let taken = self.shared.timestamps.take().into_iter();
        taken.map(|(number, (prefix, count))| (number, prefix.to_string(), count)).collect()
    }

    fn gave(&self, firsts: Vec<(u64, u64)>) {
        self.shared.timestamps.answer(firsts.into_iter().map(|(number, first)| (number, Answer::Done(first))));
    }

    fn gave_none(&self, numbers: Vec<u64>, status: u16, problem: &[u8]) {
        let answer = Answer::Failed(status, Bytes::copy_from_slice(problem));
        self.shared.timestamps.answer(numbers.into_iter().map(|number| (number, answer.clone())));
    }

    fn close(&self, py: Python<'_>) {
        // Nobody to tell: the thread has ended already.
        let _ = self.ending.send(true);
        let thread = lock(&self.thread).take();
        if let Some(thread) = thread {
            let _ = py.detach(|| thread.join());
        }
        self.shared.writes.close();
        self.shared.timestamps.close();
    }
}

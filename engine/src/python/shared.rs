//! Shared memory for Python: tables, counters and rings, with Python's own errors.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};

use pyo3::exceptions::{
    PyBlockingIOError, PyFileNotFoundError, PyMemoryError, PyOSError, PyPermissionError, PyRuntimeError, PyValueError,
};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;

use crate::shared::{self, Consumer, Counter, Producer, Reader, Room, SharedError, Writer};
use crate::sync::lock;

/// Writes a table in shared memory; see the stub.
#[pyclass(frozen, module = "unisono._engine")]
pub struct SharedWriter(Mutex<Option<Writer>>);

#[pymethods]
impl SharedWriter {
    #[new]
    fn new(path: PathBuf, size_bytes: u64) -> PyResult<Self> {
        let writer = Writer::create(&path, size_bytes).map_err(shared_error)?;
        Ok(Self(Mutex::new(Some(writer))))
    }

    fn put(&self, key: &str, value: &[u8], revision: u64, timestamp: u64) -> PyResult<()> {
        self.with(|writer| writer.put(key.as_bytes(), value, revision, timestamp))
    }

    fn delete(&self, key: &str) -> PyResult<bool> {
        self.with(|writer| Ok(writer.delete(key.as_bytes())))
    }

    fn leave_out(&self, key: &str) -> PyResult<()> {
        self.with(|writer| {
            writer.leave_out(key.as_bytes());
            Ok(())
        })
    }

    #[pyo3(signature = (revision, as_of_ns = None))]
    fn publish(&self, revision: u64, as_of_ns: Option<u64>) -> PyResult<()> {
        self.with(|writer| writer.publish(revision, as_of_ns.unwrap_or_else(shared::now)))
    }

    #[pyo3(signature = (revision, as_of_ns = None))]
    fn progress(&self, revision: u64, as_of_ns: Option<u64>) -> PyResult<()> {
        self.with(|writer| {
            writer.progress(revision, as_of_ns.unwrap_or_else(shared::now));
            Ok(())
        })
    }

    #[getter]
    fn epoch(&self) -> PyResult<u64> {
        self.with(|writer| Ok(writer.epoch()))
    }

    fn close(&self) {
        lock(&self.0).take();
    }

    #[staticmethod]
    fn remove(path: PathBuf) -> PyResult<()> {
        shared::remove(&path).map_err(shared_error)
    }
}

impl SharedWriter {
    fn with<T>(&self, work: impl FnOnce(&mut Writer) -> Result<T, SharedError>) -> PyResult<T> {
        let mut writer = lock(&self.0);
        let writer = writer.as_mut().ok_or_else(|| PyRuntimeError::new_err("this writer is closed"))?;
        work(writer).map_err(shared_error)
    }
}

/// A value in shared memory; see the stub.
#[pyclass(frozen, eq, get_all, module = "unisono._engine")]
#[derive(PartialEq)]
pub struct SharedValue {
    value: PyBackedBytes,
    revision: u64,
    timestamp: Option<u64>,
}

#[pymethods]
impl SharedValue {
    #[new]
    fn new(value: PyBackedBytes, revision: u64, timestamp: Option<u64>) -> Self {
        Self { value, revision, timestamp }
    }

    fn __repr__(&self) -> String {
        let (length, revision, timestamp) = (self.value.len(), self.revision, self.timestamp);
        format!("SharedValue({length} bytes, revision={revision}, timestamp={timestamp:?})")
    }
}

/// Reads a table in shared memory; see the stub.
#[pyclass(frozen, module = "unisono._engine")]
pub struct SharedReader(Reader);

#[pymethods]
impl SharedReader {
    #[new]
    fn new(path: PathBuf) -> PyResult<Self> {
        Reader::open(&path).map(Self).map_err(shared_error)
    }

    fn get(&self, py: Python<'_>, key: &str) -> PyResult<Option<SharedValue>> {
        let mut room = Room::default();
        let read = self.0.read(key.as_bytes(), &mut room).map_err(shared_error)?;
        Ok(read.map(|read| SharedValue {
            value: PyBytes::new(py, room.bytes()).into(),
            revision: read.revision,
            timestamp: Some(read.timestamp),
        }))
    }

    fn progress(&self) -> PyResult<(u64, u64, u64)> {
        let progress = self.0.progress().map_err(shared_error)?;
        Ok((progress.revision, progress.age_ns, progress.epoch))
    }

    fn reopen(&self) -> PyResult<()> {
        self.0.reopen().map_err(shared_error)
    }
}

/// Counts in shared memory; see the stub.
#[pyclass(frozen, module = "unisono._engine")]
pub struct SharedCounter(Counter);

#[pymethods]
impl SharedCounter {
    #[new]
    fn new(path: PathBuf) -> PyResult<Self> {
        Counter::open(&path).map(Self).map_err(shared_error)
    }

    #[pyo3(signature = (amount = 1))]
    fn add(&self, amount: i64) -> PyResult<i64> {
        self.0.add(amount).map_err(shared_error)
    }

    #[getter]
    fn value(&self) -> i64 {
        self.0.get()
    }
}

/// Writes a ring in shared memory; see the stub.
#[pyclass(frozen, module = "unisono._engine")]
pub struct SharedProducer(Mutex<Option<Producer>>);

#[pymethods]
impl SharedProducer {
    #[new]
    fn new(path: PathBuf, slots: usize, message_bytes: usize) -> PyResult<Self> {
        let producer = Producer::open(&path, slots, message_bytes).map_err(shared_error)?;
        Ok(Self(Mutex::new(Some(producer))))
    }

    fn push(&self, message: &[u8]) -> PyResult<u64> {
        let mut producer = lock(&self.0);
        let producer = producer.as_mut().ok_or_else(|| PyRuntimeError::new_err("this producer is closed"))?;
        producer.push(message).map_err(shared_error)
    }

    fn close(&self) {
        lock(&self.0).take();
    }
}

/// Reads a ring in shared memory; see the stub.
#[pyclass(frozen, module = "unisono._engine")]
pub struct SharedConsumer(Mutex<Consumer>);

#[pymethods]
impl SharedConsumer {
    #[new]
    #[pyo3(signature = (path, position = None))]
    fn new(path: PathBuf, position: Option<u64>) -> PyResult<Self> {
        let consumer = Consumer::open(&path, position).map_err(shared_error)?;
        Ok(Self(Mutex::new(consumer)))
    }

    fn take<'py>(&self, py: Python<'py>) -> PyResult<Option<(Bound<'py, PyBytes>, u64, u64)>> {
        let taken = self.locked().take().map_err(shared_error)?;
        Ok(taken.map(|taken| (PyBytes::new(py, &taken.message), taken.number, taken.lost)))
    }

    #[getter]
    fn position(&self) -> u64 {
        self.locked().position()
    }
}

impl SharedConsumer {
    fn locked(&self) -> MutexGuard<'_, Consumer> {
        lock(&self.0)
    }
}

/// An error of shared memory, as the one of Python's that says what the caller can do.
fn shared_error(error: SharedError) -> PyErr {
    use SharedError::{Busy, Damaged, Foreign, Full, Invalid, Io, LeftOut, Unreadable};
    let text = error.to_string();
    match error {
        Io(_, cause) if cause.kind() == std::io::ErrorKind::NotFound => PyFileNotFoundError::new_err(text),
        Io(_, cause) if cause.kind() == std::io::ErrorKind::PermissionDenied => PyPermissionError::new_err(text),
        Io(..) => PyOSError::new_err(text),
        Unreadable | LeftOut | Busy(_) => PyBlockingIOError::new_err(text),
        Full { .. } => PyMemoryError::new_err(text),
        Foreign(..) | Damaged => PyRuntimeError::new_err(text),
        Invalid(_) => PyValueError::new_err(text),
    }
}

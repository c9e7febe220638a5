//! The engine of unisono: what happens per request or per sample.
//!
//! This file is the face towards Python and nothing else; the modules know no Python.

pub mod clock;
pub mod control;
pub mod dispatch;
pub mod handover;
pub mod load;
pub mod observe;
pub mod process;
pub mod proxy;
pub mod shared;
pub mod simulate;
pub mod state;

/// A gateway has thousands of small buffers at one moment and none at the next. This allocator keeps them by size and
/// gives whole pages back to the system; glibc's keeps what lies between two small ones for ever.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[cfg(feature = "python")]
mod python {
    use std::path::PathBuf;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread::JoinHandle;
    use std::time::Duration;

    use bytes::Bytes;
    use pyo3::exceptions::{
        PyBlockingIOError, PyFileNotFoundError, PyMemoryError, PyOSError, PyPermissionError, PyRuntimeError,
        PyValueError,
    };
    use pyo3::prelude::*;
    use pyo3::pybacked::{PyBackedBytes, PyBackedStr};
    use pyo3::types::PyBytes;
    use tokio::sync::watch;

    use crate::load::{self, Plan};
    use crate::state::gathering::{Answer, Gathering};
    use crate::state::mirror::{Entry, Mirror};
    use crate::state::serve::Shared;
    use crate::state::token::Signer;

    /// Runs the gateway until SIGTERM or SIGINT; see the stub.
    #[pyfunction]
    #[pyo3(signature = (control_socket, table_path, *, workers = None, take_over = false))]
    fn run_gateway(
        py: Python<'_>,
        control_socket: PathBuf,
        table_path: PathBuf,
        workers: Option<usize>,
        take_over: bool,
    ) -> PyResult<()> {
        let plan = crate::process::Plan { control_socket, table_path, workers, take_over };
        py.detach(|| crate::process::run(&plan)).map_err(PyOSError::new_err)
    }

    /// Plays a scenario in virtual time; see the stub.
    #[pyfunction]
    fn simulate(py: Python<'_>, scenario: &str) -> PyResult<String> {
        py.detach(|| crate::simulate::run(scenario)).map_err(PyValueError::new_err)
    }

    /// Puts load on a service in a thread of its own; see the stub.
    #[pyclass(frozen, module = "unisono._engine")]
    struct Load {
        stop: Arc<AtomicBool>,
        running: std::sync::Mutex<Running>,
    }

    enum Running {
        Planned(Option<Box<Plan>>),
        Started(Option<JoinHandle<Result<String, String>>>),
        Done(Result<String, String>),
    }

    #[pymethods]
    impl Load {
        #[new]
        #[pyo3(
            signature = (
                url, *, connections = 16, rate = None, duration = None, method = "GET", body = Vec::new(),
                headers = Vec::new(), timeout = 30.0, series = false, samples = false, seed = 1
            ),
            text_signature = "(url, *, connections=16, rate=None, duration=None, method='GET', body=b'', headers=(), \
                              timeout=30.0, series=False, samples=False, seed=1)"
        )]
        #[expect(clippy::too_many_arguments, reason = "each is a keyword of its own in Python")]
        fn new(
            url: &str,
            connections: usize,
            rate: Option<f64>,
            duration: Option<f64>,
            method: &str,
            body: Vec<u8>,
            headers: Vec<(String, String)>,
            timeout: f64,
            series: bool,
            samples: bool,
            seed: u64,
        ) -> PyResult<Self> {
            let mut plan =
                Plan::try_new(url, method, &headers, body, connections, rate).map_err(PyValueError::new_err)?;
            plan.duration = duration.map(|seconds| span("duration", seconds)).transpose()?;
            plan.timeout = span("timeout", timeout)?;
            (plan.series, plan.samples, plan.seed) = (series, samples, seed);
            let running = std::sync::Mutex::new(Running::Planned(Some(Box::new(plan))));
            Ok(Self { stop: Arc::default(), running })
        }

        fn __enter__(slf: Bound<'_, Self>) -> PyResult<Bound<'_, Self>> {
            slf.get().start()?;
            Ok(slf)
        }

        #[pyo3(signature = (*_exception))]
        fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, pyo3::types::PyTuple>) {
            self.stop.store(true, Ordering::Relaxed);
            // A failure of the load shows in the report; it must not hide the block's own.
            let _ = self.wait(py);
        }

        /// Puts the load on for its duration; gives the report as JSON.
        fn run(&self, py: Python<'_>) -> PyResult<String> {
            if matches!(&*self.lock(), Running::Planned(Some(plan)) if plan.duration.is_none()) {
                return Err(PyValueError::new_err("run() needs a duration; without one, use a with statement"));
            }
            self.start()?;
            self.wait(py)
        }

        /// The report as JSON, once the load is over.
        fn report(&self, py: Python<'_>) -> PyResult<String> {
            self.wait(py)
        }
    }

    impl Load {
        fn start(&self) -> PyResult<()> {
            let mut running = self.lock();
            let Running::Planned(plan) = &mut *running else {
                return Err(PyRuntimeError::new_err("the load was started before; make another one"));
            };
            let Some(plan) = plan.take() else { return Ok(()) };
            let stop = Arc::clone(&self.stop);
            let thread = std::thread::Builder::new().name("unisono-load".into()).spawn(move || load::run(*plan, &stop));
            *running = Running::Started(Some(thread.map_err(PyOSError::new_err)?));
            Ok(())
        }

        fn wait(&self, py: Python<'_>) -> PyResult<String> {
            py.detach(|| {
                let mut running = self.lock();
                if let Running::Started(thread) = &mut *running
                    && let Some(thread) = thread.take()
                {
                    let done = thread.join().unwrap_or_else(|_| Err("the load's thread panicked".into()));
                    *running = Running::Done(done);
                }
                match &*running {
                    Running::Done(done) => done.clone().map_err(PyOSError::new_err),
                    _ => Err(PyRuntimeError::new_err("the load was never started; use it in a with statement")),
                }
            })
        }

        fn lock(&self) -> std::sync::MutexGuard<'_, Running> {
            self.running.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
        }
    }

    /// A hybrid logical clock; see the stub.
    #[pyclass(frozen, module = "unisono._engine")]
    struct Clock(crate::clock::Clock);

    #[pymethods]
    impl Clock {
        #[new]
        #[pyo3(signature = (*, start = 0, max_drift_ms = 500))]
        fn new(start: u64, max_drift_ms: u64) -> Self {
            Self(crate::clock::Clock::new(start, max_drift_ms))
        }

        /// The stamp of a local event, or of a message about to be sent.
        fn now(&self) -> u64 {
            self.0.now(physical_ms())
        }

        /// The stamp of receiving a message.
        fn observe(&self, received: u64) -> PyResult<u64> {
            self.0.merge(received, physical_ms()).map_err(|ahead| self.refusal(ahead))
        }

        /// As `now` and `observe`, at a time that is given: for comparing with the definition.
        fn at(&self, physical_ms: u64, received: Option<u64>) -> PyResult<u64> {
            received.map_or_else(
                || Ok(self.0.now(physical_ms)),
                |received| self.0.merge(received, physical_ms).map_err(|ahead| self.refusal(ahead)),
            )
        }

        #[getter]
        fn last(&self) -> u64 {
            self.0.last()
        }

        #[getter]
        fn refused(&self) -> u64 {
            self.0.refused()
        }

        #[getter]
        fn max_drift_ms(&self) -> u64 {
            self.0.max_drift_ms()
        }
    }

    impl Clock {
        fn refusal(&self, ahead: crate::clock::Ahead) -> PyErr {
            let (ms, limit) = (ahead.ms, self.0.max_drift_ms());
            PyValueError::new_err(format!("timestamp is {ms} ms ahead of this clock, the limit is {limit} ms"))
        }
    }

    /// Writes a table in shared memory; see the stub.
    #[pyclass(frozen, module = "unisono._engine")]
    struct SharedWriter(std::sync::Mutex<Option<crate::shared::Writer>>);

    #[pymethods]
    impl SharedWriter {
        #[new]
        fn new(path: PathBuf, size_bytes: u64) -> PyResult<Self> {
            let writer = crate::shared::Writer::create(&path, size_bytes).map_err(shared_error)?;
            Ok(Self(std::sync::Mutex::new(Some(writer))))
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
            self.with(|writer| writer.publish(revision, as_of_ns.unwrap_or_else(crate::shared::now)))
        }

        #[pyo3(signature = (revision, as_of_ns = None))]
        fn progress(&self, revision: u64, as_of_ns: Option<u64>) -> PyResult<()> {
            self.with(|writer| {
                writer.progress(revision, as_of_ns.unwrap_or_else(crate::shared::now));
                Ok(())
            })
        }

        #[getter]
        fn epoch(&self) -> PyResult<u64> {
            self.with(|writer| Ok(writer.epoch()))
        }

        fn close(&self) {
            self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        }

        #[staticmethod]
        fn remove(path: PathBuf) -> PyResult<()> {
            crate::shared::remove(&path).map_err(shared_error)
        }
    }

    impl SharedWriter {
        fn with<T>(
            &self,
            work: impl FnOnce(&mut crate::shared::Writer) -> Result<T, crate::shared::SharedError>,
        ) -> PyResult<T> {
            let mut writer = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let writer = writer.as_mut().ok_or_else(|| PyRuntimeError::new_err("this writer is closed"))?;
            work(writer).map_err(shared_error)
        }
    }

    /// A value in shared memory; see the stub.
    #[pyclass(frozen, eq, get_all, module = "unisono._engine")]
    #[derive(PartialEq)]
    struct SharedValue {
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
    struct SharedReader(crate::shared::Reader);

    #[pymethods]
    impl SharedReader {
        #[new]
        fn new(path: PathBuf) -> PyResult<Self> {
            crate::shared::Reader::open(&path).map(Self).map_err(shared_error)
        }

        fn get(&self, py: Python<'_>, key: &str) -> PyResult<Option<SharedValue>> {
            let mut room = crate::shared::Room::default();
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
    struct SharedCounter(crate::shared::Counter);

    #[pymethods]
    impl SharedCounter {
        #[new]
        fn new(path: PathBuf) -> PyResult<Self> {
            crate::shared::Counter::open(&path).map(Self).map_err(shared_error)
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
    struct SharedProducer(std::sync::Mutex<Option<crate::shared::Producer>>);

    #[pymethods]
    impl SharedProducer {
        #[new]
        fn new(path: PathBuf, slots: usize, message_bytes: usize) -> PyResult<Self> {
            let producer = crate::shared::Producer::open(&path, slots, message_bytes).map_err(shared_error)?;
            Ok(Self(std::sync::Mutex::new(Some(producer))))
        }

        fn push(&self, message: &[u8]) -> PyResult<u64> {
            let mut producer = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let producer = producer.as_mut().ok_or_else(|| PyRuntimeError::new_err("this producer is closed"))?;
            producer.push(message).map_err(shared_error)
        }

        fn close(&self) {
            self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        }
    }

    /// Reads a ring in shared memory; see the stub.
    #[pyclass(frozen, module = "unisono._engine")]
    struct SharedConsumer(std::sync::Mutex<crate::shared::Consumer>);

    #[pymethods]
    impl SharedConsumer {
        #[new]
        #[pyo3(signature = (path, position = None))]
        fn new(path: PathBuf, position: Option<u64>) -> PyResult<Self> {
            let consumer = crate::shared::Consumer::open(&path, position).map_err(shared_error)?;
            Ok(Self(std::sync::Mutex::new(consumer)))
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
        fn locked(&self) -> std::sync::MutexGuard<'_, crate::shared::Consumer> {
            self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
        }
    }

    /// An error of shared memory, as the one of Python's that says what the caller can do.
    fn shared_error(error: crate::shared::SharedError) -> PyErr {
        use crate::shared::SharedError::{Busy, Damaged, Foreign, Full, Invalid, Io, LeftOut, Unreadable};
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

    fn physical_ms() -> u64 {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// Serves shared state at a Unix socket in a thread of its own; see the stub.
    #[pyclass(frozen, module = "unisono._engine")]
    struct StateServer {
        shared: Arc<Shared>,
        ending: watch::Sender<bool>,
        thread: std::sync::Mutex<Option<JoinHandle<()>>>,
    }

    type Kept = (PyBackedBytes, u64, u64);

    #[pymethods]
    impl StateServer {
        #[new]
        fn new(listener: i32, behind: PathBuf, secret: Vec<u8>) -> PyResult<Self> {
            let listener = crate::state::serve::duplicate(listener).map_err(PyOSError::new_err)?;
            let shared = Arc::new(Shared {
                mirror: Mirror::default(),
                signer: Signer::try_new(secret).map_err(PyValueError::new_err)?,
                writes: Gathering::try_new().map_err(PyOSError::new_err)?,
                timestamps: Gathering::try_new().map_err(PyOSError::new_err)?,
                behind,
            });
            let (ending, ended) = watch::channel(false);
            let serving = Arc::clone(&shared);
            let thread = std::thread::Builder::new().name("unisono-state".into()).spawn(move || {
                if let Err(error) = crate::state::serve::run(&serving, listener, ended) {
                    eprintln!("state: the server has failed: {error}");
                }
            });
            let thread = std::sync::Mutex::new(Some(thread.map_err(PyOSError::new_err)?));
            Ok(Self { shared, ending, thread })
        }

        fn learn(&self, credentials: &[u8], prefix: &str) {
            self.shared.mirror.learn(credentials, prefix);
        }

        fn forget(&self) {
            self.shared.mirror.forget();
        }

        fn apply(&self, changes: Vec<(PyBackedStr, Option<Kept>)>, revision: u64) {
            let changes = changes.into_iter().map(|(key, kept)| {
                let entry = kept.map(|(value, created, modified)| {
                    let value = Bytes::copy_from_slice(&value);
                    Entry { value, created, modified }
                });
                (Bytes::copy_from_slice(key.as_bytes()), entry)
            });
            self.shared.mirror.apply(changes, revision);
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
            let thread = self.thread.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
            if let Some(thread) = thread {
                let _ = py.detach(|| thread.join());
            }
            self.shared.writes.close();
            self.shared.timestamps.close();
        }
    }

    fn span(name: &str, seconds: f64) -> PyResult<Duration> {
        Duration::try_from_secs_f64(seconds)
            .map_err(|_| PyValueError::new_err(format!("{name} is {seconds}; seconds from 0 up would be right")))
    }

    /// What happens per request or per sample, in Rust.
    #[pymodule(gil_used = false)]
    fn _engine(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        module.add_function(wrap_pyfunction!(run_gateway, module)?)?;
        module.add_function(wrap_pyfunction!(simulate, module)?)?;
        module.add_class::<Clock>()?;
        module.add_class::<Load>()?;
        module.add_class::<SharedConsumer>()?;
        module.add_class::<SharedCounter>()?;
        module.add_class::<SharedProducer>()?;
        module.add_class::<SharedReader>()?;
        module.add_class::<SharedValue>()?;
        module.add_class::<SharedWriter>()?;
        module.add_class::<StateServer>()?;
        Ok(())
    }
}

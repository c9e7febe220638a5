//! The load generator for Python: what [`crate::load`] is asked, in a thread of its own.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;

use crate::load::{self, Plan};
use crate::sync::lock;

/// Puts load on a service in a thread of its own; see the stub.
#[pyclass(frozen, module = "unisono._engine")]
pub struct Load {
    stop: Arc<AtomicBool>,
    running: Mutex<Running>,
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
        let mut plan = Plan::try_new(url, method, &headers, body, connections, rate).map_err(PyValueError::new_err)?;
        plan.duration = duration.map(|seconds| span("duration", seconds)).transpose()?;
        plan.timeout = span("timeout", timeout)?;
        (plan.series, plan.samples, plan.seed) = (series, samples, seed);
        let running = Mutex::new(Running::Planned(Some(Box::new(plan))));
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

    fn lock(&self) -> MutexGuard<'_, Running> {
        lock(&self.running)
    }
}

fn span(name: &str, seconds: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(seconds)
        .map_err(|_| PyValueError::new_err(format!("{name} is {seconds}; seconds from 0 up would be right")))
}

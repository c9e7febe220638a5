//! The hybrid logical clock for Python, at this machine's time.

use std::time::{SystemTime, UNIX_EPOCH};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// A hybrid logical clock; see the stub.
#[pyclass(frozen, module = "unisono._engine")]
pub struct Clock(crate::clock::Clock);

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

fn physical_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

//! The face towards Python: each class and function of `src/unisono/_engine.pyi`, which says what they promise.
//!
//! Here arguments and errors are turned into Rust's and Python's own, and the interpreter is let go of around every
//! wait. What is done is done by the modules that each file names.

mod clock;
mod load;
mod shared;
mod state;

use std::path::PathBuf;

use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;

use clock::Clock;
use load::Load;
use shared::{SharedConsumer, SharedCounter, SharedProducer, SharedReader, SharedValue, SharedWriter};
use state::StateServer;

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

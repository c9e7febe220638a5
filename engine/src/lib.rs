//! The engine of unisono: what happens per request or per sample.
//!
//! This file is the face towards Python and nothing else; the modules know no Python.

pub mod control;
pub mod dispatch;
pub mod process;
pub mod proxy;

#[cfg(feature = "python")]
mod python {
    use std::path::PathBuf;

    use pyo3::exceptions::PyOSError;
    use pyo3::prelude::*;

    /// Runs the gateway until SIGTERM or SIGINT; see the stub.
    #[pyfunction]
    fn run_gateway(py: Python<'_>, control_socket: PathBuf, table_path: PathBuf) -> PyResult<()> {
        py.detach(|| crate::process::run(&control_socket, &table_path)).map_err(PyOSError::new_err)
    }

    /// What happens per request or per sample, in Rust.
    #[pymodule(gil_used = false)]
    fn _engine(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        module.add_function(wrap_pyfunction!(run_gateway, module)?)?;
        Ok(())
    }
}

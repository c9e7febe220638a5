//! The engine of unisono: what happens per request or per sample. This file is the face towards Python
//! and nothing else; the gateway lives in the modules below and knows no Python.

#[cfg(feature = "python")]
mod python {
    use pyo3::prelude::*;

    /// What happens per request or per sample, in Rust.
    #[pymodule(gil_used = false)]
    fn _engine(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        Ok(())
    }
}

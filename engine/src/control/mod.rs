//! The HTTP API on a Unix socket by which the node tells the gateway what to do and asks how it goes, and where the last
//! table is kept.

pub mod api;
pub mod exposition;
pub mod keep;

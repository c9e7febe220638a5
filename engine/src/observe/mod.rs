//! What is seen of requests: figures for Prometheus, a line in the access log, the trace that a request belongs
//! to. Nothing here decides anything; what the node acts on are `control/`'s events and measurements.

pub mod figures;
pub mod log;
pub mod record;
pub mod trace;

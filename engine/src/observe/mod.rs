//! What is seen of requests: figures, a line in the access log, the trace that a request belongs to; and what the node
//! is told at once. Nothing here decides anything.

pub mod events;
pub mod figures;
pub mod log;
pub mod record;
pub mod trace;

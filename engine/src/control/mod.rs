//! What the node says to the gateway and hears from it: the routing table and where it is kept, events, and
//! the HTTP API on a Unix socket, its figures for Prometheus among them.

pub mod api;
pub mod events;
pub mod exposition;
pub mod keep;
pub mod policy;
pub mod table;

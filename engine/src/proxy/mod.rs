//! The gateway's path of a request: a listener takes the connection, a route names the service, dispatch gives
//! a place, a connection to the instance carries the request, and the answer streams back. Everything runs on
//! one thread, so that there is no lock on the way and one queue per service is exact.

pub mod admit;
pub mod attempt;
pub mod backend;
pub mod body;
pub mod connection;
pub mod deliver;
pub mod exits;
pub mod forward;
pub mod gateway;
pub mod head;
pub mod headers;
pub mod interim;
pub mod listen;
pub mod outbound;
pub mod problem;
pub mod route;
pub mod tunnel;
pub mod upstream;
pub mod wire;

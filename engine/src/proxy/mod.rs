//! The gateway's path of a request: a listener takes the connection, a route names the service, dispatch gives
//! a place, a connection to the instance carries the request, and the answer streams back. A request
//! stays on the thread that took its connection; what the threads share is behind locks that are held for a few
//! instructions, so that one queue per service is exact.

pub mod accounts;
pub mod admit;
pub mod attempt;
pub mod back_pressure;
pub mod backend;
pub mod body;
pub mod connection;
pub mod connections;
pub mod date;
pub mod deadline;
pub mod deliver;
pub mod exits;
pub mod forward;
pub mod frames;
pub mod gateway;
pub mod grpc;
pub mod head;
pub mod headers;
pub mod hedge;
pub mod http1;
pub mod http2;
pub mod inflow;
pub mod interim;
pub mod listen;
pub mod mirror;
pub mod multiplex;
pub mod outbound;
pub mod pace;
pub mod piled;
pub mod plain;
pub mod plain_http1;
pub mod plain_request;
pub mod policy;
pub mod pools;
pub mod problem;
pub mod revisions;
pub mod route;
pub mod seek;
pub mod shared;
pub mod stamps;
pub mod sticky;
pub mod stream;
pub mod target;
pub mod tcp;
pub mod tls;
pub mod tunnel;
pub mod turn;
pub mod upload;
pub mod upstream;
pub mod wire;
pub mod workers;

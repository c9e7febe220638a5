//! The gateway's path of a request: a listener takes the connection, a route names the service, dispatch gives
//! a place, a connection to the instance carries the request, and the answer streams back. A request
//! stays on the thread that took its connection; what the threads share is behind locks that are held for a few
//! instructions, so that one queue per service is exact.

// What the routing table makes, and the threads that all of it runs on.
pub mod accounts;
pub mod common;
pub mod connections;
pub mod executor;
pub mod exits;
pub mod gateway;
pub mod listen;
pub mod route;
pub mod stamps;
pub mod tls;
pub mod turn;
pub mod workers;

// A client's connection, and whichever protocol is spoken on it.
pub mod client;
pub mod connection;
pub mod frames;
pub mod http1;
pub mod http2;
pub mod piled;
pub mod plain_http1;
pub mod plain_request;
pub mod tcp;
pub mod tunnel;

// A request's way, stage by stage.
pub mod admit;
pub mod attempt;
pub mod deliver;
pub mod forward;
pub mod hedge;
pub mod interim;
pub mod mirror;
pub mod outbound;

// What a request says, is told, or is held to.
pub mod back_pressure;
pub mod date;
pub mod deadline;
pub mod grpc;
pub mod head;
pub mod headers;
pub mod pace;
pub mod problem;
pub mod sticky;

// A service, its instances, and a request's place at one.
pub mod backend;
pub mod place;
pub mod policy;
pub mod revisions;
pub mod seek;
pub mod target;

// A connection to an instance.
pub mod dial;
pub mod multiplex;
pub mod plain;
pub mod pools;
pub mod upstream;

// Bytes: of a connection, and of bodies either way.
pub mod answer;
pub mod body;
pub mod inflow;
pub mod stream;
pub mod upload;
pub mod wire;

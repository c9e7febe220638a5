//! The gateway's path of a request: a listener takes the connection, a route names the service, dispatch gives
//! a place, a connection to the instance carries the request, and the answer streams back. A request
//! stays on the thread that took its connection; what the threads share is behind locks that are held for a few
//! instructions, so that one queue per service is exact.
//!
//! The parts stand in floors, the uppermost first: a part knows those of its own floor and of floors below.

// What the routing table makes, and the threads that all of it runs on.
pub mod exits;
pub mod gateway;
pub mod turn;
pub mod workers;

// Speaking with a client, in whichever protocol.
pub mod connection;
pub mod http1;
pub mod http2;
pub mod plain_http1;
pub mod plain_request;
pub mod tcp;

// A request's way, stage by stage.
pub mod admit;
pub mod answer;
pub mod attempt;
pub mod deliver;
pub mod forward;
pub mod hedge;
pub mod mirror;
pub mod outbound;

// A client, and the listener that it came in by.
pub mod client;
pub mod listen;
pub mod route;
pub mod tunnel;

// A service, and a request's place at one of its instances.
pub mod backend;
pub mod place;
pub mod policy;
pub mod seek;

// Connections to instances.
pub mod dial;
pub mod interim;
pub mod multiplex;
pub mod plain;
pub mod pools;
pub mod upload;
pub mod upstream;

// An instance, and what all services and clients have in common.
pub mod accounts;
pub mod common;
pub mod connections;
pub mod revisions;
pub mod stamps;
pub mod target;

// What messages say, and the bytes that they come in.
pub mod back_pressure;
pub mod body;
pub mod date;
pub mod deadline;
pub mod executor;
pub mod frames;
pub mod grpc;
pub mod head;
pub mod headers;
pub mod inflow;
pub mod pace;
pub mod piled;
pub mod problem;
pub mod sticky;
pub mod stream;
pub mod tls;
pub mod wire;

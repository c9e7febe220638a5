//! The data plane of shared state: plain reads and writes of one key, and timestamps, carried without Python per request.
//!
//! A server takes connections at the services' address. What is plain ([`plain`]) it does itself: it reads from a
//! [`replica`] of the store that the store's one writer keeps, in the order of commits and before it acknowledges
//! them, so that a read sees all that was acknowledged before it began; and it gathers writes and requests for
//! timestamps ([`gathering`]), so that Python runs once for many. Everything else, and whatever is not quite right, goes
//! to the API behind it (`forward`), which alone knows all rules and all errors.
//!
//! Who calls, the API says: it teaches the replica the callers that may use all of their namespace.

mod answer;
mod behind;
mod forward;
pub mod gathering;
pub mod plain;
pub mod replica;
pub mod serve;
pub mod token;

//! The engine of unisono: what happens per request or per sample.
//!
//! `python` is the face towards Python, and the only part that knows of it.

pub mod chance;
pub mod clock;
pub mod control;
pub mod dispatch;
pub mod fields;
pub mod handover;
pub mod load;
pub mod observe;
pub mod process;
pub mod proxy;
pub mod shared;
pub mod simulate;
pub mod state;
pub mod sync;
pub mod table;

/// A gateway has thousands of small buffers at one moment and none at the next. This allocator keeps them by size and
/// gives whole pages back to the system; glibc's keeps what lies between two small ones for ever.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[cfg(feature = "python")]
mod python;

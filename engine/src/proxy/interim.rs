//! Interim (1xx) answers of an instance on their way to the client. 100 (Continue) lets the request's body go;
//! the others, such as 103 (Early Hints), are passed on.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use http::{HeaderMap, Request, StatusCode};

use super::head::HEAD_MAX;
use super::wire::Wire;
use crate::sync::lock;

/// What an instance has said before its answer. hyper asks for a callback that could be called on any thread,
/// hence the locks; they are never contended.
#[derive(Clone, Debug, Default)]
pub struct Relay(Arc<Said>);

#[derive(Debug, Default)]
struct Said {
    wants_body: AtomicBool,
    has_heads: AtomicBool,
    heads: Mutex<Vec<u8>>,
}

impl Relay {
    /// Hears what is said on a request.
    pub fn attach<B>(&self, request: &mut Request<B>) {
        let said = Arc::clone(&self.0);
        hyper::ext::on_informational(request, move |head| {
            if head.status() == StatusCode::CONTINUE {
                said.wants_body.store(true, Ordering::Relaxed);
            } else {
                let mut heads = lock(&said.heads);
                // Nobody relies on one, and an instance may say them without end.
                if heads.len() < HEAD_MAX {
                    write_head(&mut heads, head.status(), head.headers());
                    said.has_heads.store(true, Ordering::Relaxed);
                }
            }
        });
    }

    /// Whether the instance has asked for the body.
    pub fn wants_body(&self) -> bool {
        self.0.wants_body.load(Ordering::Relaxed)
    }

    /// Passes on what has been said since.
    pub fn pass_on(&self, client: &Wire) {
        if self.0.has_heads.swap(false, Ordering::Relaxed) {
            let heads = std::mem::take(&mut *lock(&self.0.heads));
            client.send_interim(&heads);
        }
    }
}

fn write_head(out: &mut Vec<u8>, status: StatusCode, headers: &HeaderMap) {
    let mut headers = headers.clone();
    super::headers::strip_hop_by_hop(&mut headers);
    // Writing to a Vec cannot fail.
    let _ = write!(out, "HTTP/1.1 {} {}\r\n", status.as_u16(), status.canonical_reason().unwrap_or("Interim"));
    for (name, value) in &headers {
        let _ = write!(out, "{name}: ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

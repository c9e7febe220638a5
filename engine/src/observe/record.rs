//! What is noted of one request while it lasts. Dropping the note, at the end of the answer or when the client is
//! gone, counts the request and writes its line.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{Method, StatusCode};
use tokio::time::Instant;

use super::figures::{Counted, Ended};
use super::log::{AccessLog, Attempt, Line};
use super::trace::Trace;

/// nginx's word for a client that was gone before its answer began.
const CLIENT_GONE: u16 = 499;

/// The note of one request.
pub struct Record {
    access_log: Arc<AccessLog>,
    began: Instant,
    method: &'static str,
    counted: RefCell<Option<Arc<Counted>>>,
    status: Cell<u16>,
    reason: Cell<Option<&'static str>>,
    waited: Cell<Duration>,
    bytes_in: Rc<Cell<u64>>,
    bytes_out: Cell<u64>,
    /// The whole answer went out, as far as the gateway can tell.
    complete: Cell<bool>,
    /// What only the access log wants to know; `None`: there is none.
    told: Option<Box<Told>>,
}

struct Told {
    at: SystemTime,
    client: IpAddr,
    method: Method,
    path: String,
    answered_after: Cell<Duration>,
    trace: RefCell<Option<Trace>>,
    attempts: RefCell<Vec<Attempt>>,
}

impl Record {
    /// Of a request whose head is here.
    pub fn new(access_log: &Arc<AccessLog>, client: IpAddr, method: &Method, path: &str) -> Self {
        let told = access_log.is_on().then(|| {
            Box::new(Told {
                at: SystemTime::now(),
                client,
                method: method.clone(),
                // Without its query, which is where secrets are.
                path: path.to_owned(),
                answered_after: Cell::new(Duration::ZERO),
                trace: RefCell::new(None),
                attempts: RefCell::default(),
            })
        });
        Self {
            access_log: Arc::clone(access_log),
            began: Instant::now(),
            method: word(method),
            counted: RefCell::new(None),
            status: Cell::new(0),
            reason: Cell::new(None),
            waited: Cell::new(Duration::ZERO),
            bytes_in: Rc::default(),
            bytes_out: Cell::new(0),
            complete: Cell::new(false),
            told,
        }
    }

    /// When its head was here.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// The service that it goes to.
    pub fn routed(&self, counted: &Arc<Counted>) {
        *self.counted.borrow_mut() = Some(Arc::clone(counted));
    }

    /// What it belongs to.
    pub fn belongs_to(&self, trace: Trace) {
        if let Some(told) = &self.told {
            *told.trace.borrow_mut() = Some(trace);
        }
    }

    /// Where the bytes of its body are counted as they come.
    pub fn inflow(&self) -> Rc<Cell<u64>> {
        Rc::clone(&self.bytes_in)
    }

    /// It waited for a place.
    pub fn waited(&self, waited: Duration) {
        self.waited.set(self.waited.get() + waited);
    }

    /// When a try begins; `None`: nobody wants to know.
    pub fn attempt_began(&self) -> Option<Instant> {
        self.told.as_ref().map(|_| Instant::now())
    }

    /// A try that was made at an instance is over; `outcome` as in the metrics.
    pub fn tried(&self, instance: &str, outcome: &'static str, began: Option<Instant>) {
        if let (Some(told), Some(began)) = (&self.told, began) {
            let attempt = Attempt { instance: instance.to_owned(), outcome, took: began.elapsed() };
            told.attempts.borrow_mut().push(attempt);
        }
    }

    /// The head of its answer goes out; `reason` if the gateway answers itself.
    pub fn answered(&self, status: StatusCode, reason: Option<&'static str>) {
        self.status.set(status.as_u16());
        self.reason.set(reason);
        if let Some(told) = &self.told {
            told.answered_after.set(self.began.elapsed());
        }
    }

    /// So much of its answer's body went out.
    pub fn sent(&self, bytes: u64) {
        self.bytes_out.set(self.bytes_out.get() + bytes);
    }

    /// The instance broke its answer off, of which the head is out.
    pub fn broke_off(&self) {
        self.reason.set(Some("upstream_reset"));
    }

    /// All of its answer went out.
    pub fn completed(&self) {
        self.complete.set(true);
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let is_gone = self.status.get() == 0;
        if is_gone {
            self.status.set(CLIENT_GONE);
        }
        if !self.complete.get() && self.reason.get().is_none() {
            self.reason.set(Some("client_abort"));
        }
        let total = self.began.elapsed();
        let counted = self.counted.take();
        if let Some(counted) = &counted {
            counted.ended(&Ended {
                method: self.method,
                status: self.status.get(),
                reason: self.reason.get(),
                total,
                waited: self.waited.get(),
                bytes_in: self.bytes_in.get(),
                bytes_out: self.bytes_out.get(),
            });
        }
        let Some(told) = self.told.take() else { return };
        self.access_log.write(&Line {
            at: told.at,
            client: told.client,
            method: told.method.as_str(),
            path: &told.path,
            status: self.status.get(),
            service: counted.as_ref().map(|counted| counted.service.as_str()),
            reason: self.reason.get(),
            attempts: &told.attempts.borrow(),
            trace: told.trace.borrow().as_ref(),
            queued: self.waited.get(),
            first_byte: (!is_gone).then(|| told.answered_after.get()),
            total,
            bytes_in: self.bytes_in.get(),
            bytes_out: self.bytes_out.get(),
        });
    }
}

/// A method as a label: a client's own invention must not become a series.
fn word(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        "PATCH" => "PATCH",
        "OPTIONS" => "OPTIONS",
        "TRACE" => "TRACE",
        _ => "other",
    }
}

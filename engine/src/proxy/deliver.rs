//! A request's way to an answer: a place, a try, and further tries where they are allowed.
//!
//! What may be sent again, and when (RFC 9110 section 9.2.2):
//! * not a byte of it went out: any request;
//! * it went out and no answer began to reach the client: a request that is idempotent by its method or marked
//!   by `Idempotency-Key`, whose body is here in full; at most `attempts` times;
//! * all else: never. The client gets a 502 that says that it may have happened.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use http::Response;
use tokio::time::Instant;

use super::attempt::{attempt, connection_to};
use super::backend::{Backend, NoPlace, Policy};
use super::body::AnswerBody;
use super::connection::ClientState;
use super::deadline::Deadline;
use super::outbound::{Outbound, Payload};
use super::problem::{Problem, Reason};
use super::target::Target;
use super::upstream::Failed;
use crate::dispatch::{TargetKey, Ticket};

/// Kept-alive connections found broken that do not count as tries.
const STALE_MAX: u32 = 2;

/// What a try left behind, for the one who gives up in its middle.
#[derive(Default)]
struct Progress {
    /// A try went out whose outcome is not known to be "nothing happened".
    sent: Cell<bool>,
    /// Where the current try is.
    target: RefCell<Option<Arc<Target>>>,
}

/// Has a request answered within the time that there is for it.
///
/// # Errors
/// What the client is told instead of an instance's answer.
pub async fn deliver_in_time(
    backend: &Arc<Backend>,
    client: &Rc<ClientState>,
    outbound: &mut Outbound,
) -> Result<Response<AnswerBody>, Problem> {
    let (ticket, policy) = backend.arrive();
    let progress = Progress::default();
    let Some((ends, reason)) = end_of(&policy, outbound.deadline) else {
        return deliver(backend, client, outbound, (ticket, &policy), &progress).await;
    };
    if ends <= Instant::now() {
        return Err(too_late(reason, &policy).happened(false));
    }
    let delivering = deliver(backend, client, outbound, (ticket, &policy), &progress);
    tokio::time::timeout_at(ends, delivering).await.unwrap_or_else(|_| {
        if let Some(target) = progress.target.take() {
            target.failures.more();
        }
        Err(too_late(reason, &policy).happened(progress.sent.get()))
    })
}

/// When a request's time is over, and whose limit that is.
fn end_of(policy: &Policy, deadline: Option<Deadline>) -> Option<(Instant, Reason)> {
    let own = policy.timeout.map(|limit| (Instant::now() + limit, Reason::Timeout));
    let asked = deadline.map(|deadline| (deadline.at, Reason::Deadline));
    own.into_iter().chain(asked).min_by_key(|(ends, _)| *ends)
}

fn too_late(reason: Reason, policy: &Policy) -> Problem {
    let detail = match policy.timeout {
        Some(limit) if reason == Reason::Timeout => format!("No answer began within {} ms.", limit.as_millis()),
        _ => "No answer began within the time that the request allows.".into(),
    };
    Problem::of(reason, detail)
}

async fn deliver(
    backend: &Arc<Backend>,
    client: &Rc<ClientState>,
    outbound: &mut Outbound,
    (ticket, policy): (Ticket, &Policy),
    progress: &Progress,
) -> Result<Response<AnswerBody>, Problem> {
    let mut avoid: Vec<TargetKey> = Vec::new();
    let (mut tries, mut stale) = (0, 0);
    let mut patience = policy.wait;
    loop {
        let began = Instant::now();
        let place = backend.seek(ticket, &avoid, patience).await.map_err(|why| no_place(why, policy, progress))?;
        let (key, target) = (place.key(), Arc::clone(&place.target));
        let connected = connection_to(&place, outbound).await;
        patience = patience.saturating_sub(began.elapsed());
        let Some(upstream) = connected else {
            push_new(&mut avoid, key);
            continue;
        };
        let was_used = upstream.used;
        target.requests.more();
        *progress.target.borrow_mut() = Some(target);
        let was_sent = progress.sent.replace(true);
        let tried = attempt(client, outbound, upstream, place).await;
        progress.target.take();
        let failed = match tried {
            Ok(response) => return Ok(response),
            Err(failed) => failed,
        };
        push_new(&mut avoid, key);
        match failed {
            Failed::Unsent(body) => {
                progress.sent.set(was_sent);
                if let Payload::Streamed(slot) = &mut outbound.payload {
                    *slot = body;
                }
                if matches!(outbound.payload, Payload::Streamed(None)) {
                    return Err(broken(outbound, was_sent));
                }
            }
            Failed::Broken if outbound.repeatable && was_used && stale < STALE_MAX => stale += 1,
            Failed::Broken if outbound.repeatable && tries + 1 < policy.attempts => tries += 1,
            Failed::Broken => return Err(broken(outbound, true)),
            Failed::Invalid => {
                let detail = "What the instance answered is not HTTP.";
                return Err(Problem::of(Reason::UpstreamInvalid, detail).happened(true));
            }
        }
    }
}

fn push_new(keys: &mut Vec<TargetKey>, key: TargetKey) {
    if !keys.contains(&key) {
        keys.push(key);
    }
}

fn no_place(why: NoPlace, policy: &Policy, progress: &Progress) -> Problem {
    let wait = policy.wait.as_millis();
    let problem = match why {
        NoPlace::QueueFull => Problem::of(Reason::QueueFull, "The service's queue is full."),
        NoPlace::NoTarget => Problem::of(Reason::NoTarget, format!("No instance was ready within {wait} ms.")),
        NoPlace::WaitTimeout => {
            Problem::of(Reason::WaitTimeout, format!("No instance could take the request within {wait} ms."))
        }
    };
    problem.happened(progress.sent.get())
}

fn broken(outbound: &Outbound, maybe: bool) -> Problem {
    let detail = match (maybe, outbound.repeatable) {
        (false, _) => "The instance broke the connection before the request went out. It did not happen.",
        (true, true) => "Every instance that was tried broke the connection before its answer.",
        (true, false) => {
            "The instance broke the connection before its answer. The request may have happened, and is not \
             sent again by itself."
        }
    };
    Problem::of(Reason::UpstreamReset, detail).happened(maybe)
}

//! A request's way to an answer: a place, a try, and further tries where they are allowed.
//!
//! What may be sent again, and when (RFC 9110 section 9.2.2):
//! * not a byte of it went out: any request;
//! * it went out and no answer began to reach the client, or the answer is one of the service's retry
//!   `statuses` and there is another instance: a request that is idempotent by its method or marked by
//!   `Idempotency-Key`, whose body is here in full; at most `attempts` times, within the service's budget and the
//!   request's time, after a pause;
//! * all else: never. The client gets a 502 that says that it may have happened.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::Response;
use http::header::{self, HeaderValue};
use tokio::time::Instant;

use super::admit::BODY_MAX;
use super::answer::AnswerBody;
use super::attempt::{Answered, Lost, attempt, let_go, pass_on};
use super::back_pressure;
use super::backend::Backend;
use super::client::ClientState;
use super::grpc;
use super::hedge::race;
use super::mirror;
use super::outbound::Outbound;
use super::place::Place;
use super::policy::Policy;
use super::problem::{Problem, Reason};
use super::revisions::Avoid;
use super::seek::{NoPlace, Seeking};
use super::sticky;
use super::upload::Fault;
use crate::dispatch::{TargetKey, Ticket};
use crate::observe::record::Record;

/// Kept-alive connections found broken that do not count as tries.
const STALE_MAX: u32 = 2;

/// Has a request answered within the time that there is for it.
///
/// # Errors
/// What the client is told instead of an instance's answer.
pub async fn deliver(
    backend: &Arc<Backend>,
    client: &Rc<ClientState>,
    outbound: &Outbound,
    record: &Record,
) -> Result<Response<AnswerBody>, Problem> {
    let mut now = if outbound.is_all_head() { record.began() } else { Instant::now() };
    let mut delivery = Delivery::new(backend, outbound, record, now);
    if delivery.is_over(now) {
        return Err(delivery.too_late());
    }
    if let Some(mirror) = &delivery.policy.mirror {
        mirror::copy(backend, mirror, outbound);
    }
    loop {
        let place = delivery.place(now).await?;
        let mut key = place.key();
        let lost = match delivery.attempt(client, place).await {
            Ok(answered) => match delivery.pause_before_another(&answered) {
                Some(pause) => {
                    Box::pin(let_go(answered)).await;
                    tokio::time::sleep(pause).await;
                    now = Instant::now();
                    continue;
                }
                None => {
                    // Of two tries at once it may be the second's.
                    key = answered.place.key();
                    let cookie = delivery.cookie(client, &answered);
                    match pass_on(client, outbound, answered).await {
                        Ok(mut response) => {
                            cookie.map(|cookie| response.headers_mut().append(header::SET_COOKIE, cookie));
                            return Ok(response);
                        }
                        Err(lost) => lost,
                    }
                }
            },
            Err(lost) => lost,
        };
        delivery.recover(key, lost).await?;
        now = Instant::now();
    }
}

/// A request on its way.
struct Delivery<'a> {
    backend: &'a Arc<Backend>,
    outbound: &'a Outbound,
    record: &'a Record,
    policy: Arc<Policy>,
    ticket: Ticket,
    /// When its time is over, and whose limit that is.
    ends: Option<(Instant, Reason)>,
    /// What it has in common with others that are to meet at its target.
    hash: Option<u64>,
    /// Where it was tried.
    avoid: Avoid,
    /// Tries that went out.
    tries: u32,
    stale: u32,
    /// A try went out whose outcome is not known to be "nothing happened".
    sent: bool,
    /// How long it may still wait for places.
    patience: Duration,
}

impl<'a> Delivery<'a> {
    fn new(backend: &'a Arc<Backend>, outbound: &'a Outbound, record: &'a Record, now: Instant) -> Self {
        let (ticket, policy) = backend.arrive(now);
        let own = policy.timeout.map(|limit| (now + limit, Reason::Timeout));
        let asked = outbound.deadline.map(|deadline| (deadline.at, Reason::Deadline));
        let ends = own.into_iter().chain(asked).min_by_key(|(ends, _)| *ends);
        let patience = policy.wait;
        let all = policy.goes_by_headers().then(|| outbound.full_headers());
        let headers = all.as_deref().unwrap_or(&outbound.headers);
        let hash = policy.hash(outbound.uri.path(), headers);
        let avoid = backend.beside(&policy, headers);
        Self { backend, outbound, record, policy, ticket, ends, hash, avoid, tries: 0, stale: 0, sent: false, patience }
    }

    fn is_over(&self, now: Instant) -> bool {
        self.ends.is_some_and(|(ends, _)| ends <= now)
    }

    async fn place(&mut self, began: Instant) -> Result<Place, Problem> {
        let left = self.ends.map_or(self.patience, |(ends, _)| self.patience.min(ends - began));
        let outbound = self.outbound;
        let (class, bytes) = (outbound.class, outbound.bytes());
        let seeking = Seeking { ticket: self.ticket, avoid: &self.avoid, class, bytes, hash: self.hash };
        let sought = self.backend.seek(seeking, began, left).await;
        let waited = sought
            .as_ref()
            .map_or_else(|_| began.elapsed(), |place| place.granted_at().saturating_duration_since(began));
        self.record.waited(waited);
        self.patience = self.patience.saturating_sub(waited);
        sought.map_err(|why| match why {
            NoPlace::NoTarget | NoPlace::WaitTimeout if self.is_over(Instant::now()) => self.too_late(),
            _ => self.no_place(why),
        })
    }

    async fn attempt(&mut self, client: &ClientState, place: Place) -> Result<Answered, Lost> {
        let (began, asked) = (self.record.attempt_began(), Arc::clone(&place.target));
        let ended = self.attempt_or_race(client, place).await;
        let (outcome, by) = match &ended {
            Ok(answered) => ("answered", &answered.place.target),
            Err(lost) => (lost.word(), &asked),
        };
        self.record.tried(&by.id, outcome, began);
        ended
    }

    /// One try, or two at once where the first takes long.
    async fn attempt_or_race(&mut self, client: &ClientState, place: Place) -> Result<Answered, Lost> {
        // What a client has at one instance another one would not find.
        let may_be_elsewhere = self.outbound.may_be_doubled && self.policy.sticky.is_none();
        let hedge = self.policy.hedge.as_ref().filter(|_| may_be_elsewhere);
        let after = hedge.and_then(|hedge| {
            hedge.after_ms.map_or_else(|| self.backend.hedge_after(), |ms| Some(Duration::from_millis(ms)))
        });
        let (Some(hedge), Some(after)) = (hedge, after) else {
            return attempt(Some(client), self.outbound, place, self.ends).await;
        };
        let (first, mut second) = (place.key(), None);
        let beside = || {
            let mut avoid = self.avoid.keys.clone();
            avoid.push(first);
            let place = self.backend.seek_idle(&avoid, hedge.budget)?;
            self.backend.counted.hedged();
            second = Some(place.key());
            Some(place)
        };
        // Rare ways are put in boxes: a request's future is moved as a whole, and should not be as large as they are.
        let ended = Box::pin(race(client, self.outbound, place, self.ends, after, beside)).await;
        if let (Err(_), Some(second)) = (&ended, second) {
            self.avoid.failed(second);
        }
        ended
    }

    /// The cookie that leads the client's next requests to where this one was answered; `None`: it has that one.
    fn cookie(&self, client: &ClientState, answered: &Answered) -> Option<HeaderValue> {
        let sticky = self.policy.sticky.as_ref()?;
        let mark = &answered.place.target.mark;
        let is_known = sticky::cookie(&sticky.cookie, &self.outbound.headers) == Some(mark.as_bytes());
        if is_known { None } else { sticky::set_cookie(&sticky.cookie, mark, client.scheme() == "https") }
    }

    /// Whether an answer is one that another instance may better: the pause before that one is asked then.
    fn pause_before_another(&mut self, answered: &Answered) -> Option<Duration> {
        let parts = &answered.parts;
        let status = grpc::http_status(parts.status, &parts.headers);
        let is_failed = self.policy.retry.statuses.contains(&status.as_u16());
        if !is_failed || !self.outbound.is_repeatable() || back_pressure::is_refusal(&parts.headers) {
            return None;
        }
        self.sent = true;
        self.tries += 1;
        self.avoid.failed(answered.place.key());
        if self.backend.has_other(&self.avoid.keys) { self.another_try() } else { None }
    }

    /// What comes after a try without an answer: another one, or what the client is told.
    async fn recover(&mut self, key: TargetKey, lost: Lost) -> Result<(), Problem> {
        match lost {
            Lost::Unsent => {
                self.avoid.failed(key);
                if !self.outbound.has_body() {
                    return Err(self.broken());
                }
            }
            Lost::Stale if self.stale < STALE_MAX => {
                self.sent = true;
                self.stale += 1;
            }
            Lost::Stale | Lost::Broken => {
                self.sent = true;
                self.tries += 1;
                self.avoid.failed(key);
                let pause = if self.outbound.is_repeatable() { self.another_try() } else { None };
                let Some(pause) = pause else { return Err(self.broken()) };
                tokio::time::sleep(pause).await;
            }
            Lost::Client => return Err(self.faulty()),
            Lost::Invalid => {
                let detail = "What the instance answered is not HTTP.";
                return Err(Problem::of(Reason::UpstreamInvalid, detail).happened(true));
            }
            Lost::TooLate { sent } => {
                self.sent |= sent;
                return Err(self.too_late());
            }
        }
        if self.is_over(Instant::now()) { Err(self.too_late()) } else { Ok(()) }
    }

    /// Takes a further try from the budget: the pause before it. `None`: there is none, or no time for it.
    fn another_try(&self) -> Option<Duration> {
        let retry = &self.policy.retry;
        let pause = self.backend.backoff(self.tries, retry);
        let is_in_time = self.ends.is_none_or(|(ends, _)| Instant::now() + pause < ends);
        if self.tries >= retry.attempts || !is_in_time {
            return None;
        }
        let may = self.backend.may_retry(retry);
        self.backend.counted.retried(if may { "made" } else { "no_budget" });
        may.then_some(pause)
    }

    fn too_late(&self) -> Problem {
        let (reason, detail) = match (self.ends, self.policy.timeout) {
            (Some((_, Reason::Timeout)), Some(limit)) => {
                (Reason::Timeout, format!("No answer began within {} ms.", limit.as_millis()))
            }
            _ => (Reason::Deadline, "No answer began within the time that the request allows.".into()),
        };
        Problem::of(reason, detail).happened(self.sent)
    }

    fn no_place(&self, why: NoPlace) -> Problem {
        let wait = self.policy.wait.as_millis();
        let problem = match why {
            NoPlace::QueueFull => Problem::of(Reason::QueueFull, "The service's queue is full."),
            NoPlace::Late(wait) => Problem::of(Reason::Late, "It would wait for longer than it may.").after(wait),
            NoPlace::Shed(wait) => {
                let detail = "More requests came than could be answered in time, and this one could not be any more.";
                Problem::of(Reason::Shed, detail).after(wait)
            }
            NoPlace::NoTarget => Problem::of(Reason::NoTarget, format!("No instance was ready within {wait} ms.")),
            NoPlace::WaitTimeout => {
                Problem::of(Reason::WaitTimeout, format!("No instance could take the request within {wait} ms."))
            }
        };
        problem.happened(self.sent)
    }

    /// The client's own fault, while its body came in.
    fn faulty(&self) -> Problem {
        let (reason, detail) = match self.outbound.fault() {
            Some(Fault::TooLarge) => (Reason::BodyTooLarge, format!("At most {BODY_MAX} bytes are let through.")),
            Some(Fault::TooSlow) => {
                (Reason::BodyTooSlow, "After 10 s of waiting a body must come at 256 bytes a second.".into())
            }
            _ => (Reason::BadRequest, "The request's body did not come in full.".into()),
        };
        Problem::of(reason, detail).happened(true)
    }

    fn broken(&self) -> Problem {
        let detail = match (self.sent, self.outbound.is_repeatable()) {
            (false, _) => "The instance broke the connection before the request went out. It did not happen.",
            (true, true) => "Every instance that was tried broke the connection before its answer.",
            (true, false) => {
                "The instance broke the connection before its answer. The request may have happened, and is not \
                 sent again by itself."
            }
        };
        Problem::of(Reason::UpstreamReset, detail).happened(self.sent)
    }
}

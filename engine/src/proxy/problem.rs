//! Answers that the gateway makes itself: RFC 9457 problem details, with the reason as a header too.

use std::time::Duration;

use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;

use super::back_pressure;
use crate::observe::trace::Trace;

/// When to come back, where nothing better is known.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why the gateway answers instead of an instance. The word is what `unisono-reason` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The request is not one that may be passed on.
    BadRequest,
    /// The host belongs on a connection with another certificate.
    Misdirected,
    /// The client sends its body too slowly.
    BodyTooSlow,
    /// CONNECT, which a gateway does not do.
    NoMethod,
    /// No rule matches host and path.
    NoRoute,
    /// The body is larger than the gateway lets through.
    BodyTooLarge,
    /// No instance was ready within the wait.
    NoTarget,
    /// Instances are there, and all were busy or unreachable for the whole wait.
    WaitTimeout,
    /// Too many requests wait already.
    QueueFull,
    /// It would have to wait for longer than it may.
    Late,
    /// It has waited for so long that it could not be answered in its time any more.
    Shed,
    /// The answer did not begin within the service's timeout.
    Timeout,
    /// The answer did not begin within the time that the client gave.
    Deadline,
    /// The instance broke the connection.
    UpstreamReset,
    /// The instance answered what is not HTTP.
    UpstreamInvalid,
}

impl Reason {
    /// What `unisono-reason` says.
    pub const fn word(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::Misdirected => "misdirected",
            Self::BodyTooSlow => "body_too_slow",
            Self::NoMethod => "no_method",
            Self::NoRoute => "no_route",
            Self::BodyTooLarge => "body_too_large",
            Self::NoTarget => "no_target",
            Self::WaitTimeout => "wait_timeout",
            Self::QueueFull => "queue_full",
            Self::Late => "late",
            Self::Shed => "shed",
            Self::Timeout => "timeout",
            Self::Deadline => "deadline",
            Self::UpstreamReset => "upstream_reset",
            Self::UpstreamInvalid => "upstream_invalid",
        }
    }

    const fn status(self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::BodyTooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::NoMethod => StatusCode::NOT_IMPLEMENTED,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NoTarget | Self::WaitTimeout | Self::QueueFull | Self::Late | Self::Shed => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Timeout | Self::Deadline => StatusCode::GATEWAY_TIMEOUT,
            Self::UpstreamReset | Self::UpstreamInvalid => StatusCode::BAD_GATEWAY,
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::BadRequest => "The request cannot be passed on",
            Self::Misdirected => "The request is on the wrong connection",
            Self::BodyTooSlow => "The request's body comes too slowly",
            Self::NoMethod => "The method is not supported",
            Self::NoRoute => "No service answers here",
            Self::BodyTooLarge => "The request body is too large",
            Self::NoTarget => "The service has no ready instance",
            Self::WaitTimeout => "The service is busy",
            Self::QueueFull => "Too many requests wait for the service",
            Self::Late | Self::Shed => "The service cannot answer in time",
            Self::Timeout | Self::Deadline => "The service did not answer in time",
            Self::UpstreamReset => "The instance broke the connection",
            Self::UpstreamInvalid => "The instance's answer is not HTTP",
        }
    }
}

/// A problem to be told to a client.
#[derive(Debug)]
pub struct Problem {
    /// What happened.
    pub reason: Reason,
    /// What was found and what would be right.
    pub detail: String,
    /// The service it is about, once known.
    pub service: Option<String>,
    /// Whether the request may have had its effect; `None` where the question does not arise.
    pub may_have_happened: Option<bool>,
    /// When trying again may do; with 503 only.
    retry_after: Duration,
}

#[derive(Serialize)]
struct Document<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: &'a str,
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    may_have_happened: Option<bool>,
    trace_id: &'a str,
}

impl Problem {
    /// A problem with a request that reached no instance.
    pub fn of(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into(), service: None, may_have_happened: None, retry_after: RETRY_AFTER }
    }

    /// Names the service.
    #[must_use]
    pub fn at(mut self, service: &str) -> Self {
        self.service = Some(service.to_owned());
        self
    }

    /// Says when trying again may do.
    #[must_use]
    pub fn after(mut self, wait: Duration) -> Self {
        self.retry_after = wait;
        self
    }

    /// Says whether the request may have had its effect.
    #[must_use]
    pub fn happened(mut self, maybe: bool) -> Self {
        self.may_have_happened = Some(maybe);
        self
    }

    /// The whole of it in one line.
    pub fn message(&self) -> String {
        let service = self.service.as_deref().map_or_else(String::new, |service| format!("{service}: "));
        let happened = match self.may_have_happened {
            Some(true) => " It may have happened.",
            _ => "",
        };
        format!("{service}{}{happened} ({})", self.detail, self.reason.word())
    }

    /// The answer, with its body still as text.
    pub fn response(&self, trace: &Trace) -> Response<String> {
        let status = self.reason.status();
        let document = Document {
            r#type: "about:blank",
            title: self.reason.title(),
            status: status.as_u16(),
            detail: &self.detail,
            reason: self.reason.word(),
            service: self.service.as_deref(),
            may_have_happened: self.may_have_happened,
            trace_id: trace.id(),
        };
        let mut response = Response::new(serde_json::to_string(&document).unwrap_or_default());
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::SERVER, HeaderValue::from_static("unisono"));
        headers.insert(back_pressure::REASON, HeaderValue::from_static(self.reason.word()));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            let seconds = self.retry_after.as_secs() + u64::from(self.retry_after.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        response
    }
}

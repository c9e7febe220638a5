//! Answers: those that are made here, and the API's, which are passed on.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use serde_json::{Value, json};

use super::behind::Passed;

const PROBLEM: &str = "application/problem+json";

/// The body of an answer.
pub enum Answer {
    /// Made here; `None` once it was sent.
    Whole(Option<Bytes>),
    /// The API's.
    Passed(Passed),
}

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Whole(whole) => Poll::Ready(whole.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Passed(passed) => Pin::new(passed).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(whole) => whole.is_none(),
            Self::Passed(passed) => passed.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(whole) => SizeHint::with_exact(whole.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Passed(passed) => passed.size_hint(),
        }
    }
}

/// A document as JSON.
pub fn json_answer(document: &Value) -> Response<Answer> {
    let mut response = Response::new(Answer::Whole(Some(document.to_string().into())));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Problem details (RFC 9457).
pub fn problem(status: StatusCode, code: &str, detail: &str) -> Response<Answer> {
    let title = status.canonical_reason().unwrap_or_default();
    let document =
        json!({"type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail, "code": code});
    let mut response = Response::new(Answer::Whole(Some(document.to_string().into())));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM));
    response
}

/// Problem details that Python has made.
pub fn failed(status: u16, document: Bytes) -> Response<Answer> {
    let mut response = Response::new(Answer::Whole(Some(document)));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM));
    response
}

//! What the gateway knows of gRPC: which requests are, what it answers them itself, and what an answer without a
//! message says. Source: "gRPC over HTTP/2" (grpc/grpc doc/PROTOCOL-HTTP2.md) and doc/statuscodes.md there.

use std::fmt::Write;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};

use super::problem::{Problem, Reason};
use crate::fields::find;

static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
static GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Whether a head is one of gRPC; gRPC-Web is another protocol.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = find(headers, &header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    kind.strip_prefix(b"application/grpc").is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// A problem as a gRPC client reads it: an answer that is all trailers.
pub fn refusal<B: Default>(problem: &Problem) -> Response<B> {
    let mut response = Response::new(B::default());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(&GRPC_STATUS, HeaderValue::from(status_of(problem.reason)));
    headers.insert("unisono-reason", HeaderValue::from_static(problem.reason.word()));
    if let Ok(message) = HeaderValue::try_from(percent_encoded(&problem.message())) {
        headers.insert(&GRPC_MESSAGE, message);
    }
    response
}

/// What the status of an answer would be in HTTP: gRPC says 200 to everything and the truth in its trailers, which
/// come as the head where there is no message.
pub fn http_status(status: StatusCode, headers: &HeaderMap) -> StatusCode {
    let Some(code) = find(headers, &GRPC_STATUS).filter(|_| status == StatusCode::OK) else { return status };
    match code.as_bytes() {
        b"4" => StatusCode::GATEWAY_TIMEOUT,
        b"8" => StatusCode::TOO_MANY_REQUESTS,
        b"14" => StatusCode::SERVICE_UNAVAILABLE,
        b"2" | b"13" | b"15" => StatusCode::INTERNAL_SERVER_ERROR,
        _ => status,
    }
}

/// The codes are DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL and UNAVAILABLE.
const fn status_of(reason: Reason) -> u16 {
    match reason {
        Reason::Timeout | Reason::Deadline => 4,
        Reason::BodyTooLarge => 8,
        Reason::NoRoute | Reason::NoMethod => 12,
        Reason::BadRequest | Reason::BodyTooSlow | Reason::Misdirected | Reason::UpstreamInvalid => 13,
        _ => 14,
    }
}

fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if (b' '..=b'~').contains(&byte) && byte != b'%' {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_type(kind: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(kind))])
    }

    #[test]
    fn grpc_is_told_by_its_content_type() {
        let is =
            ["application/grpc", "application/grpc+proto", "application/grpc;x=y", "application/grpc-web", "text/x"]
                .map(|kind| is_grpc(&of_type(kind)));

        assert_eq!(is, [true, true, true, false, false]);
    }

    #[test]
    fn a_message_is_percent_encoded() {
        assert_eq!(percent_encoded("50 % für\n"), "50 %25 f%C3%BCr%0A");
    }

    #[test]
    fn an_answer_that_is_all_trailers_says_how_it_went() {
        let says = |code| HeaderMap::from_iter([(GRPC_STATUS.clone(), HeaderValue::from_static(code))]);

        let statuses = ["0", "5", "14", "4"].map(|code| http_status(StatusCode::OK, &says(code)).as_u16());

        assert_eq!(statuses, [200, 200, 503, 504]);
    }
}

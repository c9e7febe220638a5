//! The plain case of HTTP/1.1 towards a client: a GET that is all head and asks nothing of its connection, and an answer
//! all of which is here. As with [`plain`](super::plain), its twin towards instances, what lives here is pure, and only
//! what has one reading passes: whatever is rare, odd or not all here is not plain, and hyper gets it from its first
//! byte on. [`plain_http1`](super::plain_http1) reads and writes.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};

use super::answer::AnswerBody;
use super::date;
use super::headers::write_line;
use super::inflow::Inflow;

/// More fields than this in a request's head are not plain.
const FIELDS_MAX: usize = 64;
/// A body up to this size is copied behind its head, which costs less than a second piece to write.
const COPIED_MAX: usize = 4096;
/// What the head of an answer takes up beside its fields, and a field beside its name and value.
const LINES_ROOM: usize = 128;
const FIELD_ROOM: usize = 4;

/// The request whose head `bytes` begin with, and the length of that head; `None`: that is for hyper to say.
pub fn read(bytes: &Bytes) -> Option<(Request<Inflow>, usize)> {
    if !bytes.starts_with(b"GET /") {
        return None;
    }
    let mut space = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut parsed = httparse::Request::new(&mut []);
    let httparse::Status::Complete(end) = parsed.parse_with_uninit_headers(bytes, &mut space).ok()? else {
        return None;
    };
    if parsed.version != Some(1) || has_bare_line_feed(&bytes[..end]) {
        return None;
    }
    let uri = Uri::from_maybe_shared(bytes.slice_ref(parsed.path?.as_bytes())).ok()?;
    let mut headers = HeaderMap::with_capacity(parsed.headers.len());
    let mut hosts = 0;
    for field in parsed.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        match name {
            header::HOST => hosts += 1,
            // What HTTP/1.1 means anyway, and many clients say.
            header::CONNECTION if field.value.eq_ignore_ascii_case(b"keep-alive") => {}
            // These say that there is more to know of this message or of its connection.
            header::CONNECTION
            | header::CONTENT_LENGTH
            | header::EXPECT
            | header::TE
            | header::TRAILER
            | header::TRANSFER_ENCODING
            | header::UPGRADE => return None,
            _ => {}
        }
        headers.append(name, HeaderValue::from_maybe_shared(bytes.slice_ref(field.value)).ok()?);
    }
    if hosts != 1 {
        return None;
    }
    let mut request = Request::new(Inflow::Whole(Bytes::new()));
    *request.method_mut() = Method::GET;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    Some((request, end))
}

/// Whether a line of a head ends in LF alone, which httparse lets pass.
fn has_bare_line_feed(head: &[u8]) -> bool {
    // Without a way out in the middle, so that several bytes are looked at in one step.
    head.windows(2).fold(false, |found, pair| found | (pair[1] == b'\n' && pair[0] != b'\r'))
}

/// The bytes of an answer to a plain request: its head, with the body where that is small, and the rest of the body.
/// It is noted that it went out. `None`: it is not plain, and nothing was taken from it.
pub fn write(response: &mut Response<AnswerBody>) -> Option<(Vec<u8>, Bytes)> {
    let reason = if is_plain(response) { response.status().canonical_reason()? } else { return None };
    let mut body = response.body_mut().take_whole()?;
    let headers = response.headers();
    let fields = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD_ROOM).sum::<usize>();
    let copied = if body.len() <= COPIED_MAX { std::mem::take(&mut body) } else { Bytes::new() };
    let length = copied.len() + body.len();
    let mut head = Vec::with_capacity(LINES_ROOM + fields + copied.len());
    head.extend_from_slice(b"HTTP/1.1 ");
    head.extend_from_slice(response.status().as_str().as_bytes());
    head.push(b' ');
    head.extend_from_slice(reason.as_bytes());
    head.extend_from_slice(b"\r\n");
    let mut is_dated = false;
    for (name, value) in headers {
        if *name == header::CONTENT_LENGTH {
            // What is sent is what is said, below.
            continue;
        }
        is_dated |= *name == header::DATE;
        write_line(&mut head, name, value.as_bytes());
    }
    head.extend_from_slice(b"content-length: ");
    write_decimal(&mut head, length);
    head.extend_from_slice(b"\r\n");
    if !is_dated {
        write_line(&mut head, &header::DATE, &date::text());
    }
    head.extend_from_slice(b"\r\n");
    head.extend_from_slice(&copied);
    Some((head, body))
}

fn write_decimal(head: &mut Vec<u8>, number: usize) {
    if number >= 10 {
        write_decimal(head, number / 10);
    }
    head.push(b"0123456789"[number % 10]);
}

/// Whether an answer's head says nothing of framing, nor of the connection, and has a line that is known.
fn is_plain(response: &Response<AnswerBody>) -> bool {
    let status = response.status();
    let has_body = status.as_u16() >= 200
        && ![StatusCode::NO_CONTENT, StatusCode::RESET_CONTENT, StatusCode::NOT_MODIFIED].contains(&status);
    let is_question = |name: &HeaderName| {
        [header::CONNECTION, header::TRAILER, header::TRANSFER_ENCODING, header::UPGRADE].contains(name)
    };
    // In the extensions hyper keeps a reason in an instance's own words.
    has_body && response.extensions().is_empty() && !response.headers().keys().any(is_question)
}

#[cfg(test)]
#[path = "plain_request_tests.rs"]
mod tests;

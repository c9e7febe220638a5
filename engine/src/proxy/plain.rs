//! The plain case of HTTP/1.1 towards an instance: a request that is all head, and an answer that is here in one piece
//! with its length in its head. It is most of what small services say, and costs a fraction of what hyper needs for it.
//!
//! What lives here is pure: bytes of a head, and a look at bytes that have come in. Only what has one reading passes:
//! whatever is rare, odd or not all here is not plain, and hyper gets it from its first byte on (see
//! [`Wire::replay`](super::wire::Wire::replay)), so that framing is decided by hyper wherever there is something to decide.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Response, StatusCode, Uri};

use super::headers::write_line;
use super::inflow::Inflow;

/// More fields than this in an answer's head are not plain.
const FIELDS_MAX: usize = 32;
/// What the gateway adds to an answer: its stamp, a cookie.
const ADDED: usize = 2;
/// What the head of a request takes up beside its fields, and a field beside its name and value.
const LINE_ROOM: usize = 64;
const FIELD_ROOM: usize = 4;

/// The head of a request, with `more` lines of it. Of `headers` those are left out that `own` names, whose values are
/// this try's.
pub fn head(method: &Method, uri: &Uri, headers: &HeaderMap, more: &[u8], own: &[(&HeaderName, &[u8])]) -> Vec<u8> {
    let target = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let fields = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD_ROOM).sum::<usize>();
    let own_fields = own.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD_ROOM).sum::<usize>();
    let mut head = Vec::with_capacity(LINE_ROOM + target.len() + fields + more.len() + own_fields);
    head.extend_from_slice(method.as_str().as_bytes());
    head.push(b' ');
    head.extend_from_slice(target.as_bytes());
    head.extend_from_slice(b" HTTP/1.1\r\n");
    for (name, value) in headers {
        if !own.iter().any(|(known, _)| *known == name) {
            write_line(&mut head, name, value.as_bytes());
        }
    }
    head.extend_from_slice(more);
    for (name, value) in own {
        write_line(&mut head, name, value);
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// The answer that `bytes`, all that has come in, are; `None`: that is for hyper to say.
pub fn answer(bytes: &Bytes) -> Option<Response<Inflow>> {
    let mut space = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut parsed = httparse::Response::new(&mut space);
    let httparse::Status::Complete(end) = parsed.parse(bytes).ok()? else { return None };
    let status = StatusCode::from_u16(parsed.code?).ok()?;
    let has_body = status.as_u16() >= 200 && ![StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&status);
    if parsed.version != Some(1) || parsed.reason != status.canonical_reason() || !has_body {
        return None;
    }
    let mut headers = HeaderMap::with_capacity(parsed.headers.len() + ADDED);
    let mut length = None;
    for field in parsed.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        match name {
            header::CONTENT_LENGTH if length.is_none() => length = Some(number(field.value)?),
            // These say that there is more to know of this message or of its connection.
            header::CONTENT_LENGTH
            | header::CONNECTION
            | header::TRAILER
            | header::TRANSFER_ENCODING
            | header::UPGRADE => return None,
            _ => {}
        }
        headers.append(name, HeaderValue::from_maybe_shared(bytes.slice_ref(field.value)).ok()?);
    }
    if length? != bytes.len() - end {
        return None;
    }
    let mut answer = Response::new(Inflow::Whole(bytes.slice(end..)));
    *answer.status_mut() = status;
    *answer.headers_mut() = headers;
    Some(answer)
}

/// A length: decimal digits and nothing else.
fn number(text: &[u8]) -> Option<usize> {
    let is_number = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    if is_number { std::str::from_utf8(text).ok()?.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    static OWN: HeaderName = HeaderName::from_static("unisono-clock");

    fn is_plain(bytes: &str) -> bool {
        answer(&Bytes::copy_from_slice(bytes.as_bytes())).is_some()
    }

    #[test]
    fn a_head_has_the_values_of_its_try_in_place_of_others_of_their_name() {
        let mut headers = HeaderMap::new();
        headers.append("host", HeaderValue::from_static("shop"));
        headers.append(&OWN, HeaderValue::from_static("old"));
        headers.append("cookie", HeaderValue::from_static("a=1"));
        headers.append(&OWN, HeaderValue::from_static("older"));

        let head = head(&Method::GET, &Uri::from_static("/a?b=c"), &headers, b"via: me\r\n", &[(&OWN, b"new")]);

        let text = "GET /a?b=c HTTP/1.1\r\nhost: shop\r\ncookie: a=1\r\nvia: me\r\nunisono-clock: new\r\n\r\n";
        assert_eq!(String::from_utf8(head).unwrap(), text);
    }

    #[test]
    fn an_answer_in_one_piece_is_read_as_it_is() {
        let bytes = Bytes::from_static(b"HTTP/1.1 404 Not Found\r\nX-A: 1\r\nContent-Length: 2\r\nx-a: 2\r\n\r\nno");

        let (parts, body) = answer(&bytes).unwrap().into_parts();

        assert_eq!(parts.status, StatusCode::NOT_FOUND);
        assert_eq!(parts.headers.get_all("x-a").iter().collect::<Vec<_>>(), ["1", "2"]);
        assert!(matches!(body, Inflow::Whole(bytes) if bytes == "no"));
    }

    #[test]
    fn what_is_not_all_here_or_more_than_one_answer_is_not_plain() {
        let whole = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

        assert!(is_plain(whole));
        assert!((0..whole.len()).all(|end| !is_plain(&whole[..end])));
        assert!(!is_plain(&format!("{whole}H")));
    }

    #[test]
    fn whatever_makes_framing_a_question_is_not_plain() {
        let fields = [
            "",
            "transfer-encoding: chunked\r\n",
            "content-length: 2\r\ntransfer-encoding: chunked\r\n",
            "content-length: 2\r\ncontent-length: 2\r\n",
            "content-length: 2, 2\r\n",
            "content-length: +2\r\n",
            "content-length: 0x2\r\n",
            "content-length: \r\n",
            "content-length: 18446744073709551618\r\n",
            "content-length: 2\r\nconnection: close\r\n",
            "content-length: 2\r\nconnection: keep-alive\r\n",
            "content-length: 2\r\nupgrade: h2c\r\n",
            "content-length: 2\r\ntrailer: x\r\n",
            "content-length : 2\r\n",
            "content-length: 2\r\n folded: 1\r\n",
        ];

        for text in fields {
            assert!(!is_plain(&format!("HTTP/1.1 200 OK\r\n{text}\r\nok")), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_final_answer_with_a_body_is_not_plain() {
        let lines = [
            "HTTP/1.0 200 OK",
            "HTTP/1.1 200 Fine",
            "HTTP/1.1 100 Continue",
            "HTTP/1.1 101 Switching Protocols",
            "HTTP/1.1 103 Early Hints",
            "HTTP/1.1 204 No Content",
            "HTTP/1.1 304 Not Modified",
            "HTTP/1.1 000 OK",
        ];

        for line in lines {
            assert!(!is_plain(&format!("{line}\r\ncontent-length: 0\r\n\r\n")), "{line:?}");
        }
    }
}

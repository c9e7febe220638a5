//! What is plain is what hyper makes the same of; what is not, for each reason, by itself.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::proxy::answer::Source;

const WHOLE: &str = "GET /a?b=c HTTP/1.1\r\nHost: shop\r\nX-A: 1\r\nx-a: 2\r\n\r\n";

fn is_read(text: &str) -> bool {
    read(&Bytes::copy_from_slice(text.as_bytes())).is_some()
}

fn with(field: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n")
}

fn answer(status: u16, fields: &[(&'static str, &'static str)], source: Source) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::new(source));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    for (name, value) in fields {
        response.headers_mut().append(*name, HeaderValue::from_static(value));
    }
    response
}

fn is_written(status: u16, fields: &[(&'static str, &'static str)]) -> bool {
    write(&mut answer(status, fields, Source::Ended)).is_some()
}

#[test]
fn a_plain_request_is_read_as_it_is_and_no_further() {
    let bytes = Bytes::from(format!("{WHOLE}POST"));

    let (request, end) = read(&bytes).unwrap();

    assert_eq!((request.method(), request.uri().to_string().as_str(), end), (&Method::GET, "/a?b=c", WHOLE.len()));
    assert_eq!(request.headers()["host"], "shop");
    assert_eq!(request.headers().get_all("x-a").iter().collect::<Vec<_>>(), ["1", "2"]);
}

#[test]
fn what_is_not_all_here_is_not_plain() {
    assert!(is_read(WHOLE));
    assert!((0..WHOLE.len()).all(|end| !is_read(&WHOLE[..end])));
}

#[test]
fn whatever_makes_framing_or_the_connection_a_question_is_not_plain() {
    let fields = [
        "content-length: 0",
        "Content-Length: 5",
        "transfer-encoding: chunked",
        "Connection: close",
        "Connection: keep-alive, x-a",
        "Connection: keep-alive\r\nConnection: close",
        "Connection: upgrade",
        "Upgrade: websocket",
        "Expect: 100-continue",
        "TE: trailers",
        "Trailer: x",
        "Host: b",
    ];

    for field in fields {
        assert!(!is_read(&with(field)), "{field:?}");
    }
    assert!(is_read(&with("Connection: Keep-Alive")));
}

#[test]
fn what_two_readers_could_read_differently_is_not_plain() {
    let heads = [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: b\nY: c\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: b\rY: c\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n",
        "GET / HTTP/1.1\r\n X: b\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX(: b\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.2\r\nHost: a\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /\r\nHost: a\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "get / HTTP/1.1\r\nHost: a\r\n\r\n",
        "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\n\r\n",
    ];

    for head in heads {
        assert!(!is_read(head), "{head:?}");
    }
}

#[test]
fn more_fields_than_are_usual_are_not_plain() {
    // Beside Host.
    let fields = |count: usize| vec!["X: 1"; count].join("\r\n");

    assert!(is_read(&with(&fields(FIELDS_MAX - 1))));
    assert!(!is_read(&with(&fields(FIELDS_MAX))));
}

#[test]
fn an_answer_says_the_length_that_it_has_and_keeps_its_date() {
    let fields = [("content-length", "7"), ("date", "then"), ("x-a", "1"), ("x-a", "2")];

    let (head, rest) = write(&mut answer(404, &fields, Source::Whole(Bytes::from_static(b"no")))).unwrap();

    let text = "HTTP/1.1 404 Not Found\r\ndate: then\r\nx-a: 1\r\nx-a: 2\r\ncontent-length: 2\r\n\r\nno";
    assert_eq!((String::from_utf8(head).unwrap().as_str(), rest.len()), (text, 0));
}

#[test]
fn an_answer_without_a_date_gets_one_and_a_large_body_is_not_copied() {
    let body = Bytes::from(vec![b'a'; COPIED_MAX + 1]);

    let (head, rest) = write(&mut answer(200, &[], Source::Whole(body.clone()))).unwrap();

    let text = String::from_utf8(head).unwrap();
    assert!(text.starts_with("HTTP/1.1 200 OK\r\ncontent-length: 4097\r\ndate: "), "{text}");
    assert!(text.ends_with(" GMT\r\n\r\n") && rest == body);
}

#[test]
fn an_answer_whose_framing_is_a_question_is_not_plain() {
    let fields = [("connection", "close"), ("transfer-encoding", "chunked"), ("trailer", "x"), ("upgrade", "h2c")];

    assert!(is_written(200, &[]) && is_written(503, &[]));
    assert!(fields.iter().all(|field| !is_written(200, &[*field])));
    assert!([101, 204, 205, 299, 304].iter().all(|status| !is_written(*status, &[])));
}

/// A request as hyper reads it: its line, its fields, the length of its body.
type Read = (Method, Uri, HeaderMap, Option<u64>);

/// What hyper reads of `bytes`, behind which nothing comes, and what it writes when it is told to answer so.
fn by_hyper(bytes: &[u8], answer: impl Fn() -> Response<AnswerBody>) -> (Vec<Read>, Vec<u8>) {
    let requests = Arc::new(Mutex::new(Vec::new()));
    let mut written = Vec::new();
    let talk = async {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        client.write_all(bytes).await.unwrap();
        client.shutdown().await.unwrap();
        let service = service_fn(|request: Request<Incoming>| {
            let (parts, body) = request.into_parts();
            let read = (parts.method, parts.uri, parts.headers, body.size_hint().exact());
            requests.lock().unwrap().push(read);
            let answer = answer();
            async move { Ok::<_, Infallible>(answer) }
        });
        // It may end well or not.
        let _ = Builder::new().half_close(true).serve_connection(TokioIo::new(server), service).await;
        client.read_to_end(&mut written).await.unwrap();
    };
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(talk);
    let requests = std::mem::take(&mut *requests.lock().unwrap());
    (requests, written)
}

/// Heads of lines that are common, odd and bad, ended in the ways that lines are, one byte of which may be another.
fn head() -> impl Strategy<Value = Vec<u8>> {
    let first = prop_oneof![
        8 => Just("GET /a?b=c HTTP/1.1"),
        1 => prop::sample::select(vec![
            "GET / HTTP/1.0", "GET //a/../b%00?#c HTTP/1.1", "GET /a b HTTP/1.1", "GET  / HTTP/1.1", "GET /", "GET /\t HTTP/1.1",
            "GET http://a/ HTTP/1.1", "HEAD / HTTP/1.1", "GET * HTTP/1.1", "GET /\u{e4} HTTP/1.1", "GET / HTTP/1.1 ",
        ]),
    ];
    let field = prop_oneof![
        6 => prop::sample::select(vec!["Host: a", "X-A: 1", "x-a: \t2 ", "Cookie: a=b", "Accept: */*", "X-B:", "X_C: \u{e4}"]),
        1 => prop::sample::select(vec![
            "Connection: keep-alive", "Connection: KEEP-ALIVE ", "Connection: close", "Content-Length: 0",
            "Content-Length: 4", "Transfer-Encoding: chunked", "Transfer-Encoding : chunked", "Upgrade: h2c",
            "Expect: 100-continue", "TE: trailers", " folded", "no colon", ": no name", "X(: 1", "Host : b",
        ]),
    ];
    let end =
        || prop_oneof![30 => Just("\r\n"), 1 => prop::sample::select(vec!["\n", "\r", "\r\n\r\n", " \r\n", "\r\r\n"])];
    let fields = prop::collection::vec((field, end()), 0..6);
    let change = prop::option::weighted(0.3, (any::<prop::sample::Index>(), any::<u8>()));
    (first, end(), fields, end(), change).prop_map(|(first, first_end, fields, last, change)| {
        let fields: String = fields.iter().map(|(field, end)| format!("{field}{end}")).collect();
        let mut head = format!("{first}{first_end}Host: a\r\n{fields}{last}").into_bytes();
        if let Some((at, byte)) = change {
            let at = at.index(head.len());
            head[at] = byte;
        }
        head
    })
}

fn lines(bytes: &[u8]) -> (Vec<String>, Vec<u8>) {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let mut lines: Vec<String> = String::from_utf8_lossy(&bytes[..end]).split("\r\n").map(str::to_owned).collect();
    for line in &mut lines {
        if line.starts_with("date: ") && !line.ends_with("then") {
            "date: now".clone_into(line);
        }
    }
    lines[1..].sort_unstable();
    (lines, bytes[end..].to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_is_read_as_plain_hyper_reads_in_the_same_way(head in head()) {
        let bytes = Bytes::from(head);
        let Some((request, end)) = read(&bytes) else { return Ok(()) };
        let next = b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n";

        let (requests, _) = by_hyper(&[&bytes[..end], next].concat(), || answer(200, &[], Source::Ended));

        let (parts, _) = request.into_parts();
        prop_assert_eq!(requests.len(), 2);
        prop_assert_eq!(&requests[0], &(parts.method, parts.uri, parts.headers, Some(0)));
        prop_assert_eq!(requests[1].1.path(), "/next");
    }

    #[test]
    fn what_is_written_as_plain_hyper_writes_in_the_same_way(
        status in 200u16..600,
        length in prop::sample::select(vec![0usize, 2, COPIED_MAX, COPIED_MAX + 1]),
        says_length in any::<bool>(),
        date in prop::option::of(Just(("date", "then"))),
        more in prop::sample::subsequence(vec![("x-a", "1"), ("set-cookie", "a"), ("set-cookie", "b"), ("server", "")], 0..4),
    ) {
        let body = || Bytes::from(vec![b'a'; length]);
        let made = || {
            let source = if length == 0 { Source::Ended } else { Source::Whole(body()) };
            let fields: Vec<_> = more.iter().copied().chain(date).collect();
            let mut answer = answer(status, &fields, source);
            if says_length {
                answer.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
            }
            answer
        };
        let Some((head, rest)) = write(&mut made()) else { return Ok(()) };

        let (_, written) = by_hyper(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", made);

        prop_assert_eq!(lines(&[&head[..], &rest].concat()), lines(&written));
    }
}

//! Which requests are plain enough to be done here: one key, nothing asked of it but its value, or a new one; or
//! timestamps.
//!
//! Pure. What is not plain is not wrong: it goes to the API, which knows the rest and every error. So whatever is
//! added to the API stays right here as long as it shows in the path, the query or a header.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, header, request::Parts};

use super::replica::Replica;
use super::token::Signer;

/// The header with a consistency token.
pub const TOKEN: &str = "consistency-token";

const PATH: &str = "/v1/kv/";
const TIMESTAMPS: &str = "/v1/tso";
const KEY_MAX: usize = 512;
/// Timestamps of one request.
const COUNT_MAX: u32 = 1 << 16;
/// Headers that change nothing of what a plain request means.
const HARMLESS: [&str; 9] = [
    "host",
    "user-agent",
    "accept",
    "accept-encoding",
    "connection",
    "authorization",
    "content-length",
    "content-type",
    TOKEN,
];

/// A request that is done here.
#[derive(Debug, PartialEq, Eq)]
pub struct Plain {
    /// Where the caller's namespace lies in the store.
    pub prefix: Arc<str>,
    /// What is asked there.
    pub what: What,
}

/// What is asked; keys are the store's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// The value of a key.
    Get(Bytes),
    /// That the body be the value of a key from now on.
    Put(Bytes),
    /// Timestamps, as many as the body says.
    Timestamps,
}

/// The request as a plain one; `None`: it is for the API.
pub fn plain(head: &Parts, replica: &Replica, signer: &Signer) -> Option<Plain> {
    let path = head.uri.path();
    let is_read = head.method == Method::GET;
    let is_known = is_read || head.method == Method::PUT || (head.method == Method::POST && path == TIMESTAMPS);
    if !is_known || head.uri.query().is_some() || !harmless(&head.headers) {
        return None;
    }
    let prefix = replica.caller(one(&head.headers, &header::AUTHORIZATION)?)?;
    if let Some(token) = head.headers.get(TOKEN) {
        // A store that was set back is older than what its readers have seen: the API says so.
        let seen = signer.read(&prefix, token.as_bytes()).filter(|_| is_read)?;
        if seen > replica.revision() {
            return None;
        }
    }
    let what = if head.method == Method::POST {
        What::Timestamps
    } else {
        let key = store_key(&prefix, path.strip_prefix(PATH)?)?;
        if is_read { What::Get(key) } else { What::Put(key) }
    };
    Some(Plain { prefix, what })
}

/// How many timestamps a body asks for; `None`: it is not plain, or wrong.
pub fn count(body: &[u8]) -> Option<u32> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Request {
        count: u32,
    }
    serde_json::from_slice(body).ok().map(|Request { count }| count).filter(|count| (1..=COUNT_MAX).contains(count))
}

fn harmless(headers: &HeaderMap) -> bool {
    headers.keys().all(|name| HARMLESS.contains(&name.as_str())) && headers.len() == headers.keys_len()
}

fn one<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Option<&'a [u8]> {
    headers.get(name).map(header::HeaderValue::as_bytes)
}

/// `state/NAMESPACE/kv/KEY` with the NUL that ends each key, for a key of printable ASCII.
fn store_key(prefix: &str, name: &str) -> Option<Bytes> {
    const KEYS: &str = "kv/";
    let mut key = Vec::with_capacity(prefix.len() + KEYS.len() + name.len() + 1);
    key.extend_from_slice(prefix.as_bytes());
    key.extend_from_slice(KEYS.as_bytes());
    let mut rest = name.bytes();
    let mut count = 0;
    while let Some(byte) = rest.next() {
        let byte = if byte == b'%' { hexadecimal(rest.next()?)? << 4 | hexadecimal(rest.next()?)? } else { byte };
        if !(b' '..=b'~').contains(&byte) {
            return None;
        }
        key.push(byte);
        count += 1;
    }
    key.push(0);
    (1..=KEY_MAX).contains(&count).then(|| key.into())
}

fn hexadecimal(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| value.try_into().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn known() -> (Replica, Signer) {
        let replica = Replica::default();
        replica.learn(b"Bearer x", "state/shop/");
        replica.apply([], 20);
        (replica, Signer::try_new(vec![7; 32]).expect("32 bytes are right"))
    }

    fn asked(method: &str, path: &str, headers: &[(&str, &str)]) -> Option<Plain> {
        let mut request = Request::builder().method(method).uri(path).header("authorization", "Bearer x");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (replica, signer) = known();
        plain(&request.body(()).expect("a request").into_parts().0, &replica, &signer)
    }

    #[test]
    fn a_value_and_a_new_one_are_plain() {
        let key = Bytes::from_static(b"state/shop/kv/orders/1 a\0");
        for (method, what) in [("GET", What::Get(key.clone())), ("PUT", What::Put(key))] {
            let found = asked(method, "/v1/kv/orders/1%20a", &[]);

            assert_eq!(Some(Plain { prefix: "state/shop/".into(), what }), found);
        }
    }

    #[test]
    fn timestamps_are_plain() {
        let found = asked("POST", "/v1/tso", &[("content-type", "application/json")]);

        assert_eq!(Some(Plain { prefix: "state/shop/".into(), what: What::Timestamps }), found);
    }

    #[test]
    fn a_count_is_one_number_in_its_range() {
        assert_eq!(
            [Some(1), Some(65536), None, None, None, None, None],
            [
                r#"{"count": 1}"#,
                r#"{"count":65536}"#,
                r#"{"count":0}"#,
                r#"{"count":65537}"#,
                r#"{"count":1,"more":1}"#,
                r#"{"count":1.5}"#,
                ""
            ]
            .map(|text| count(text.as_bytes()))
        );
    }

    #[test]
    fn a_token_that_was_seen_is_plain_for_a_read_alone() {
        let (_, signer) = known();
        let seen = signer.make("state/shop/", 20);
        let ahead = signer.make("state/shop/", 21);
        let other = signer.make("state/bank/", 1);

        assert!(asked("GET", "/v1/kv/a", &[(TOKEN, &seen)]).is_some());
        assert!(asked("PUT", "/v1/kv/a", &[(TOKEN, &seen)]).is_none());
        assert!(asked("GET", "/v1/kv/a", &[(TOKEN, &ahead)]).is_none());
        assert!(asked("GET", "/v1/kv/a", &[(TOKEN, &other)]).is_none());
    }

    #[test]
    fn whatever_says_more_is_for_the_api() {
        for (method, path, headers) in [
            ("DELETE", "/v1/kv/a", &[][..]),
            ("GET", "/v1/tso", &[]),
            ("PUT", "/v1/tso", &[]),
            ("POST", "/v1/kv/a", &[]),
            ("POST", "/v1/tso?namespace=shop", &[]),
            ("GET", "/v1/kv", &[]),
            ("GET", "/v1/kv/", &[]),
            ("GET", "/v1/kv/a?revision=3", &[]),
            ("GET", "/v1/kv/a?", &[]),
            ("GET", "/v1/kv/a%", &[]),
            ("GET", "/v1/kv/a%00", &[]),
            ("GET", "/v1/kv/%C3%A9", &[]),
            ("GET", "/v1/kv/a", &[("if-none-match", "*")]),
            ("PUT", "/v1/kv/a", &[("if-match", "\"3\"")]),
            ("PUT", "/v1/kv/a", &[("idempotency-key", "1")]),
            ("PUT", "/v1/kv/a", &[("unisono-fence", "x")]),
            ("PUT", "/v1/kv/a", &[("transfer-encoding", "chunked")]),
            ("GET", "/v1/kv/a", &[("authorization", "Bearer y")]),
        ] {
            assert_eq!(None, asked(method, path, headers), "{method} {path} {headers:?}");
        }
        let long = format!("/v1/kv/{}", "a".repeat(513));
        assert_eq!(None, asked("GET", &long, &[]));
    }

    #[test]
    fn a_caller_that_is_not_known_is_for_the_api() {
        let (replica, signer) = known();
        for credentials in ["Bearer y", "bearer x", ""] {
            let request = Request::builder().uri("/v1/kv/a").header("authorization", credentials);
            let head = request.body(()).expect("a request").into_parts().0;

            assert_eq!(None, plain(&head, &replica, &signer));
        }
    }
}

//! What of a head belongs to one connection and what goes on: RFC 9110 section 7.6, RFC 9112, RFC 7239.

use std::net::IpAddr;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
static X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// Says to an instance that nobody waits for its answer. A client can't say it: it is cut out of what comes in.
pub static UNISONO_MIRROR: HeaderName = HeaderName::from_static("unisono-mirror");
/// Headers that the gateway adds to a request.
const ADDED: usize = 9;
static VIA: HeaderValue = HeaderValue::from_static("1.1 unisono");

/// What was asked of this one connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// To leave HTTP: Connection names Upgrade, which names this.
    pub upgrade: Option<HeaderValue>,
    /// To get trailers.
    pub trailers: bool,
}

/// Cuts out all that belongs to the one connection: Connection and what it names, Keep-Alive, TE,
/// Transfer-Encoding, Upgrade and their kin. A client may not have headers cut out that others rely on.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) -> Asked {
    // Most heads have none of them, and one look at the names costs less than a search for each.
    let found: Vec<HeaderName> = headers.keys().filter(|name| is_hop_by_hop(name)).cloned().collect();
    if found.is_empty() {
        return Asked::default();
    }
    let named = named_by_connection(headers);
    let upgrade = headers.get(header::UPGRADE).filter(|_| named.contains(&header::UPGRADE)).cloned();
    let asked = Asked { upgrade, trailers: takes_trailers(headers) };
    if found.contains(&header::TRANSFER_ENCODING) {
        // An answer with both was framed by Transfer-Encoding; its length is not to be believed.
        headers.remove(header::CONTENT_LENGTH);
    }
    for name in named.into_iter().filter(|name| !is_protected(name)).chain(found) {
        headers.remove(name);
    }
    asked
}

/// Whether the body is in chunks, if at all, and in nothing else: any other transfer coding would be lost with the
/// field that says it.
pub fn is_chunked_alone(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let is_chunked = |coding: &HeaderValue| coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked");
    codings.next().is_none_or(is_chunked) && codings.next().is_none()
}

/// Makes one length of several equal ones; false: they are not, or one is none (RFC 9110 section 8.6).
pub fn settle_length(headers: &mut HeaderMap) -> bool {
    let values = headers.get_all(header::CONTENT_LENGTH).iter();
    let mut lengths = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    let Some(length) = lengths.next() else { return true };
    let mut is_one = true;
    let are_equal = lengths.inspect(|_| is_one = false).all(|other| other == length);
    if length.is_empty() || !length.iter().all(u8::is_ascii_digit) || !are_equal {
        return false;
    }
    if !is_one && let Ok(settled) = HeaderValue::from_bytes(length) {
        headers.insert(header::CONTENT_LENGTH, settled);
    }
    true
}

fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "transfer-encoding"
            | "upgrade"
    )
}

fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(header::CONNECTION).iter();
    let tokens = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    tokens.filter_map(|token| HeaderName::from_bytes(token.trim_ascii()).ok()).collect()
}

/// Headers that Connection may not name (as in CVE-2025-48865).
fn is_protected(name: &HeaderName) -> bool {
    [header::HOST, header::CONTENT_LENGTH, header::AUTHORIZATION, header::COOKIE, header::FORWARDED].contains(name)
        || name.as_str().starts_with("x-forwarded-")
}

/// Makes one Cookie of several: HTTP/2 may cut it up, HTTP/1 may not (RFC 9113 section 8.2.3).
pub fn join_cookies(headers: &mut HeaderMap) {
    let crumbs: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if crumbs.len() > 1
        && let Ok(whole) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..]))
    {
        headers.insert(header::COOKIE, whole);
    }
}

fn takes_trailers(headers: &HeaderMap) -> bool {
    headers.get_all(header::TE).iter().any(|value| {
        value.as_bytes().split(|byte| *byte == b',').any(|token| token.trim_ascii().eq_ignore_ascii_case(b"trailers"))
    })
}

/// Who asks, and for what, as the gateway knows it; a client's own claims are overwritten.
pub struct Identity {
    /// The host that the client named.
    pub host: HeaderValue,
    client: HeaderValue,
    forwarded: HeaderValue,
    port: HeaderValue,
    /// "http" or "https".
    scheme: &'static str,
    /// All of it as lines of a head, Via too.
    pub lines: Vec<u8>,
}

impl Identity {
    /// Of a client at an address that reached a port and named a host.
    pub fn new(client: IpAddr, port: u16, host: &HeaderValue, scheme: &'static str) -> Self {
        let mut identity = Self {
            // A copy: as it came it is a part of the buffer that the head was read into, and would keep all of it.
            host: HeaderValue::from_bytes(host.as_bytes()).unwrap_or_else(|_| host.clone()),
            client: HeaderValue::try_from(client.to_string()).unwrap_or(HeaderValue::from_static("unknown")),
            forwarded: forwarded(client, host, scheme),
            port: HeaderValue::from(port),
            scheme,
            lines: Vec::new(),
        };
        let mut headers = HeaderMap::new();
        set_identity(&mut headers, &identity);
        for (name, value) in &headers {
            write_line(&mut identity.lines, name, value.as_bytes());
        }
        identity
    }
}

/// Writes a field as a line of a head.
pub fn write_line(head: &mut Vec<u8>, name: &HeaderName, value: &[u8]) {
    head.extend_from_slice(name.as_str().as_bytes());
    head.extend_from_slice(b": ");
    head.extend_from_slice(value);
    head.extend_from_slice(b"\r\n");
}

/// Writes the identity, and adds Via.
pub fn set_identity(headers: &mut HeaderMap, identity: &Identity) {
    // Room for all that the gateway adds, its trace and its stamp too, at once: growing costs a search for a place for each.
    headers.reserve(ADDED);
    headers.insert(&X_FORWARDED_FOR, identity.client.clone());
    headers.insert(&X_FORWARDED_PROTO, HeaderValue::from_static(identity.scheme));
    headers.insert(&X_FORWARDED_HOST, identity.host.clone());
    headers.insert(&X_FORWARDED_PORT, identity.port.clone());
    headers.insert(header::FORWARDED, identity.forwarded.clone());
    headers.append(header::VIA, VIA.clone());
}

/// The Forwarded header (RFC 7239) for a client and the host it named; quoted where the grammar asks for it.
fn forwarded(client: IpAddr, host: &HeaderValue, scheme: &str) -> HeaderValue {
    let client = match client {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("\"[{address}]\""),
    };
    let host = host.to_str().unwrap_or_default();
    let plain = !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    let text = if plain {
        format!("for={client};host={host};proto={scheme}")
    } else {
        let host = host.replace('\\', "\\\\").replace('"', "\\\"");
        format!("for={client};host=\"{host}\";proto={scheme}")
    };
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("for=unknown"))
}

/// Cuts out whatever a client claims of who it is, also by names that a CGI-like server could not tell from a header that
/// the gateway vouches for, such as `X_Forwarded_For` (as in CVE-2025-64484).
pub fn drop_claims(headers: &mut HeaderMap) {
    let found: Vec<HeaderName> = headers.keys().filter(|name| is_claim(name.as_str())).cloned().collect();
    for name in found {
        headers.remove(name);
    }
}

fn is_claim(name: &str) -> bool {
    match name {
        "forwarded" | "x-forwarded-for" | "x-forwarded-host" | "x-forwarded-port" | "x-forwarded-proto" => true,
        _ => name.contains('_') && is_look_alike(&name.replace('_', "-")),
    }
}

fn is_look_alike(dashed: &str) -> bool {
    dashed.starts_with("x-forwarded-")
        || ["x-real-ip", "unisono-clock", "unisono-mirror", "content-length", "content-type", "transfer-encoding"]
            .contains(&dashed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn a_body_may_be_in_chunks_and_in_nothing_else() {
        let lists: [&[_]; 6] = [
            &[],
            &[("transfer-encoding", "Chunked")],
            &[("transfer-encoding", "gzip")],
            &[("transfer-encoding", "gzip, chunked")],
            &[("transfer-encoding", "gzip"), ("transfer-encoding", "chunked")],
            &[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
        ];

        assert_eq!(lists.map(|lines| is_chunked_alone(&map(lines))), [true, true, false, false, false, false]);
    }

    #[test]
    fn equal_lengths_become_one_and_others_are_none() {
        let settled = |lines: &[_]| {
            let mut headers = map(lines);
            let is_settled = settle_length(&mut headers);
            let left: Vec<_> = headers.get_all("content-length").iter().cloned().collect();
            is_settled.then_some(left)
        };

        assert_eq!(settled(&[]), Some(vec![]));
        for lines in [
            &[("content-length", "5")][..],
            &[("content-length", "5, 5")],
            &[("content-length", "5"), ("content-length", "5")],
        ] {
            assert_eq!(settled(lines), Some(vec![HeaderValue::from_static("5")]), "{lines:?}");
        }
        for lines in [
            &[("content-length", "+5")][..],
            &[("content-length", "")],
            &[("content-length", "5, 6")],
            &[("content-length", "5,")],
            &[("content-length", "5"), ("content-length", "6")],
        ] {
            assert_eq!(settled(lines), None, "{lines:?}");
        }
    }

    #[test]
    fn what_connection_names_is_cut_out_but_not_what_others_rely_on() {
        let mut headers = map(&[
            ("connection", "close, X-Own, Authorization, x-forwarded-for"),
            ("connection", "host"),
            ("x-own", "1"),
            ("authorization", "2"),
            ("x-forwarded-for", "3"),
            ("host", "4"),
            ("keep-alive", "5"),
        ]);

        strip_hop_by_hop(&mut headers);

        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["authorization", "host", "x-forwarded-for"]);
    }

    #[test]
    fn a_length_beside_a_transfer_encoding_is_not_believed() {
        let mut headers = map(&[("content-length", "5"), ("transfer-encoding", "chunked")]);

        strip_hop_by_hop(&mut headers);

        assert!(headers.is_empty());
    }

    #[test]
    fn a_length_is_not_believed_either_where_connection_names_the_transfer_encoding() {
        let mut headers =
            map(&[("content-length", "5"), ("connection", "transfer-encoding"), ("transfer-encoding", "chunked")]);

        strip_hop_by_hop(&mut headers);

        assert!(headers.is_empty());
    }

    #[test]
    fn what_is_asked_of_the_connection_is_told_though_it_is_cut_out() {
        let mut headers = map(&[("connection", "te, upgrade"), ("te", "trailers"), ("upgrade", "websocket")]);

        let asked = strip_hop_by_hop(&mut headers);

        assert_eq!(asked, Asked { upgrade: Some(HeaderValue::from_static("websocket")), trailers: true });
        assert!(headers.is_empty());
    }

    #[test]
    fn claims_of_the_client_are_overwritten() {
        let mut headers =
            map(&[("x-forwarded-for", "6.6.6.6"), ("x_forwarded_for", "6.6.6.6"), ("forwarded", "for=6")]);
        let identity = Identity::new("1.2.3.4".parse().unwrap(), 80, &HeaderValue::from_static("shop"), "http");

        drop_claims(&mut headers);
        set_identity(&mut headers, &identity);

        assert!(!headers.values().any(|value| value.to_str().unwrap().contains('6')));
        assert_eq!(headers["forwarded"], "for=1.2.3.4;host=shop;proto=http");
    }

    #[test]
    fn an_identity_that_is_kept_keeps_no_buffer() {
        let head = bytes::Bytes::from(vec![b'a'; 8192]);
        let host = HeaderValue::from_maybe_shared(head.slice(..4)).unwrap();

        let identity = Identity::new("1.2.3.4".parse().unwrap(), 80, &host, "http");
        drop(host);

        assert_eq!((identity.host.as_bytes(), head.is_unique()), (&b"aaaa"[..], true));
    }

    #[test]
    fn a_cookie_in_pieces_is_put_together() {
        let mut headers = map(&[("cookie", "a=1"), ("x", "y"), ("cookie", "b=2; c=3")]);

        join_cookies(&mut headers);

        assert_eq!(headers.get_all("cookie").iter().collect::<Vec<_>>(), ["a=1; b=2; c=3"]);
    }

    #[test]
    fn forwarded_quotes_what_is_no_token() {
        let made = forwarded("::1".parse().unwrap(), &HeaderValue::from_static("shop:8080"), "https");

        assert_eq!(made, "for=\"[::1]\";host=\"shop:8080\";proto=https");
    }
}

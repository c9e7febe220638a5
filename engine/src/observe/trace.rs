//! W3C Trace Context (Recommendation, 2021): a request keeps the trace that it belongs to, or begins one; each
//! try is a span of its own, so that a trace shows which instance was asked when. `tracestate` goes on as it came
//! with its `traceparent`.

use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::chance::chance;
use crate::fields::{find, remove};

/// The header of a trace.
pub static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// version "-" trace-id "-" parent-id "-" trace-flags
const LENGTH: usize = 2 + 1 + 32 + 1 + 16 + 1 + 2;
const HEX: &[u8; 16] = b"0123456789abcdef";

/// The trace that a request belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    id: [u8; 32],
    flags: [u8; 2],
}

impl Trace {
    /// The trace that a request says it belongs to, or a new one, not sampled; what is malformed is taken out of
    /// the headers.
    pub fn of(headers: &mut HeaderMap) -> Self {
        if let Some(known) = Self::given(headers) {
            return known;
        }
        // A state that has lost its parent means nothing.
        remove(headers, &TRACEPARENT);
        remove(headers, &TRACESTATE);
        let mut id = [0; 32];
        hex(chance(), &mut id[..16]);
        hex(chance() | 1, &mut id[16..]);
        Self { id, flags: *b"00" }
    }

    fn given(headers: &HeaderMap) -> Option<Self> {
        find(headers, &TRACEPARENT)?;
        let mut given = headers.get_all(&TRACEPARENT).iter();
        let (first, second) = (given.next(), given.next());
        if second.is_some() { None } else { Self::parse(first?.as_bytes()) }
    }

    /// Its name, 32 hexadecimal digits.
    pub fn id(&self) -> &str {
        std::str::from_utf8(&self.id).unwrap_or_default()
    }

    /// Names a new span of this trace as the parent of what an instance does.
    pub fn write(&self, headers: &mut HeaderMap) {
        if let Ok(value) = HeaderValue::from_bytes(&self.text()) {
            headers.insert(TRACEPARENT.clone(), value);
        }
    }

    /// A new span of this trace, as [`write`](Self::write) has it.
    pub fn text(&self) -> [u8; LENGTH] {
        let mut text = [b'-'; LENGTH];
        text[..2].copy_from_slice(b"00");
        text[3..35].copy_from_slice(&self.id);
        hex(chance() | 1, &mut text[36..52]);
        text[53..].copy_from_slice(&self.flags);
        text
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let is_hex = |part: &[u8]| part.iter().all(|byte| HEX.contains(byte));
        let is_zero = |part: &[u8]| part.iter().all(|byte| *byte == b'0');
        let (head, rest) = text.split_at_checked(LENGTH)?;
        let (version, id, parent, flags) = (&head[..2], &head[3..35], &head[36..52], &head[53..]);
        // A later version may say more behind a dash; of this one nothing more is expected.
        let is_complete = rest.is_empty() || (version != b"00" && rest[0] == b'-');
        let is_valid = [2, 35, 52].iter().all(|dash| head[*dash] == b'-')
            && [version, id, parent, flags].iter().all(|part| is_hex(part))
            && version != b"ff"
            && !is_zero(id)
            && !is_zero(parent);
        (is_complete && is_valid)
            .then(|| Some(Self { id: id.try_into().ok()?, flags: flags.try_into().ok()? }))
            .flatten()
    }
}

fn hex(number: u64, into: &mut [u8]) {
    for (index, digit) in into.iter_mut().enumerate() {
        *digit = HEX[(number >> (60 - 4 * index) & 15) as usize];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn headers(traceparents: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for text in traceparents {
            headers.append(TRACEPARENT.clone(), HeaderValue::from_str(text).unwrap());
        }
        headers.insert(TRACESTATE.clone(), HeaderValue::from_static("vendor=1"));
        headers
    }

    #[test]
    fn a_trace_is_kept_and_each_try_is_a_span_of_its_own() {
        let mut headers = headers(&[GOOD]);
        let trace = Trace::of(&mut headers);

        let spans: Vec<String> = (0..2)
            .map(|_| {
                trace.write(&mut headers);
                headers[&TRACEPARENT].to_str().unwrap().to_owned()
            })
            .collect();

        assert!(spans.iter().all(|span| span.len() == LENGTH && span[..36] == GOOD[..36] && span[52..] == *"-01"));
        assert!(spans[0] != spans[1] && !spans.contains(&GOOD.to_owned()));
        assert_eq!(headers[&TRACESTATE], "vendor=1");
    }

    #[test]
    fn what_is_malformed_begins_a_new_trace_without_the_old_ones_state() {
        let zeros = "0".repeat(32);
        let bad = [
            String::new(),
            GOOD.to_uppercase(),
            GOOD.replacen("00-", "ff-", 1),
            GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &zeros),
            GOOD.replace("00f067aa0ba902b7", &zeros[..16]),
            format!("{GOOD}-more"),
            format!("{GOOD}0"),
            GOOD[1..].to_owned(),
            GOOD.replace('-', "_"),
            GOOD.replace('f', "g"),
        ];

        for text in bad {
            let mut headers = headers(&[&text]);
            let trace = Trace::of(&mut headers);
            assert!(!GOOD.contains(trace.id()) && headers.is_empty(), "{text}");
        }
        assert!(!GOOD.contains(Trace::of(&mut headers(&[GOOD, GOOD])).id()));
    }

    #[test]
    fn a_later_version_may_say_more() {
        let later = format!("{}-more", GOOD.replacen("00-", "cc-", 1));

        assert!(GOOD.contains(Trace::of(&mut headers(&[&later])).id()));
    }
}

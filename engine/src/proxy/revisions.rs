//! Revisions of a service: what is counted of each, and which one a request is for while one of them is tried.
//!
//! The share of a revision is a wish, not a wall: a request goes elsewhere rather than wait for it, so that a
//! revision that is down, or full, costs nobody an answer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::StatusCode;
use http::header::HeaderMap;
use serde_json::{Value, json};

use crate::dispatch::TargetKey;
use crate::sync::Count;
use crate::table::{HeaderMatch, Share};

/// The first bucket's upper end.
const FIRST: Duration = Duration::from_micros(250);
/// Buckets to each doubling: neighbours are 19 % apart.
const TO_DOUBLE: u32 = 4;
/// The last one's upper end is 54 s; what takes longer is counted there, too.
const BUCKETS: usize = 72;

/// What is counted of a revision's tries.
#[derive(Debug)]
pub struct Figures {
    requests: Count,
    failures: Count,
    latency: [Count; BUCKETS],
}

impl Default for Figures {
    fn default() -> Self {
        Self {
            requests: Count::default(),
            failures: Count::default(),
            latency: std::array::from_fn(|_| Count::default()),
        }
    }
}

impl Figures {
    /// A try was answered after `took`.
    pub fn answered(&self, status: StatusCode, took: Duration) {
        self.requests.more();
        self.latency[bucket(took)].more();
        // 501 and 505 say what the program can't do at all, to any client and with any revision of it.
        let is_able = matches!(status, StatusCode::NOT_IMPLEMENTED | StatusCode::HTTP_VERSION_NOT_SUPPORTED);
        if status.is_server_error() && !is_able {
            self.failures.more();
        }
    }

    /// A try got no answer.
    pub fn failed(&self) {
        self.requests.more();
        self.failures.more();
    }

    /// As `GET /v1/measurements` gives them.
    pub fn to_json(&self) -> Value {
        let latency: Vec<_> = self
            .latency
            .iter()
            .enumerate()
            .map(|(index, count)| (upper_us(index), count.get()))
            .filter(|(_, count)| *count > 0)
            .collect();
        json!({ "requests": self.requests.get(), "failures": self.failures.get(), "latency_us": latency })
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "cut off to the range just before")]
fn bucket(took: Duration) -> usize {
    let doublings = (took.as_secs_f64() / FIRST.as_secs_f64()).log2();
    (doublings * f64::from(TO_DOUBLE)).ceil().clamp(0.0, (BUCKETS - 1) as f64) as usize
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "54 000 000 at most")]
fn upper_us(bucket: usize) -> u64 {
    (FIRST.as_micros() as f64 * (bucket as f64 / f64::from(TO_DOUBLE)).exp2()).ceil() as u64
}

/// The revision that a request's headers lead to.
pub fn asked_for<'a>(split: &'a [Share], headers: &HeaderMap) -> Option<&'a str> {
    let has = |header: &HeaderMatch| {
        headers.get_all(&header.name).iter().any(|value| match &header.value {
            Some(wanted) => value.as_bytes() == wanted.as_bytes(),
            None => true,
        })
    };
    split.iter().find(|share| share.header.as_ref().is_some_and(has)).map(|share| &*share.revision)
}

/// Deals requests out to revisions by their shares, evenly at any time rather than by chance.
#[derive(Debug, Default)]
pub struct Dealer(AtomicU64);

impl Dealer {
    /// The revision that the next request is for; `None`: any that is not named.
    pub fn deal<'a>(&self, split: &'a [Share]) -> Option<&'a str> {
        let mut left = self.next();
        for share in split {
            if left < share.weight {
                return Some(&share.revision);
            }
            left -= share.weight;
        }
        None
    }

    /// Whether the next request is one of so many of each hundred.
    pub fn takes(&self, percent: f64) -> bool {
        self.next() < percent
    }

    /// The next of a sequence that fills 0 to 100 evenly however far it got: multiples of the golden ratio,
    /// whose three distances are the least uneven there are (V. T. Sós, 1957).
    fn next(&self) -> f64 {
        const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15; // 2^64 divided by the golden ratio
        let turn = self.0.fetch_add(GOLDEN, Ordering::Relaxed);
        (turn >> 11) as f64 / (1u64 << 53) as f64 * 100.0
    }
}

/// The target that a request belongs to, and those that it had rather not go to: first those of other revisions,
/// then, when it has failed, those that it failed on.
#[derive(Debug, Default)]
pub struct Avoid {
    /// Where it goes if that is not failing.
    pub own: Option<TargetKey>,
    /// In no order.
    pub keys: Vec<TargetKey>,
    /// It was admitted before, and is not refused for a full queue.
    pub is_again: bool,
}

impl Avoid {
    /// A request that has not been anywhere.
    pub fn others(own: Option<TargetKey>, keys: Vec<TargetKey>) -> Self {
        Self { own, keys, is_again: false }
    }

    /// It failed on this one: any other is better, of whatever revision.
    pub fn failed(&mut self, key: TargetKey) {
        if !self.is_again {
            self.keys.clear();
            self.own = None;
            self.is_again = true;
        }
        if !self.keys.contains(&key) {
            self.keys.push(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn share(revision: &str, weight: f64, header: Option<HeaderMatch>) -> Share {
        Share { revision: revision.into(), weight, header }
    }

    #[test]
    fn shares_are_kept_at_any_time() {
        let dealer = Dealer::default();
        let split = [share("2", 5.0, None), share("3", 20.0, None)];
        let (mut two, mut three) = (0i32, 0i32);
        for number in 1i32..=10_000 {
            match dealer.deal(&split) {
                Some("2") => two += 1,
                Some("3") => three += 1,
                _ => {}
            }

            assert!((two * 100 - number * 5).abs() <= 400, "{two} of {number}");
            assert!((three * 100 - number * 20).abs() <= 400, "{three} of {number}");
        }
    }

    #[test]
    fn a_header_decides_at_once() {
        let any = HeaderMatch { name: "x-new".into(), value: None };
        let one = HeaderMatch { name: "x-old".into(), value: Some("yes".into()) };
        let split = [share("2", 0.0, Some(any)), share("3", 0.0, Some(one))];
        let mut headers = HeaderMap::new();
        headers.insert("x-old", HeaderValue::from_static("no"));

        assert_eq!(asked_for(&split, &headers), None);
        headers.insert("x-old", HeaderValue::from_static("yes"));
        assert_eq!(asked_for(&split, &headers), Some("3"));
        headers.insert("x-new", HeaderValue::from_static("whatever"));
        assert_eq!(asked_for(&split, &headers), Some("2"));
    }

    #[test]
    fn a_bucket_holds_what_is_below_its_end_and_above_the_one_before() {
        for us in [1u64, 250, 251, 1000, 1001, 99_999, 1_000_000, 40_000_000] {
            let index = bucket(Duration::from_micros(us));

            assert!(us <= upper_us(index), "{us} in {index}");
            assert!(index == 0 || us >= upper_us(index - 1), "{us} in {index}");
        }
        assert_eq!(bucket(Duration::from_secs(4000)), BUCKETS - 1);
    }

    #[test]
    fn what_the_program_cannot_do_at_all_is_no_failure() {
        let figures = Figures::default();
        for status in [200, 404, 500, 501, 503, 505] {
            figures.answered(StatusCode::from_u16(status).unwrap(), Duration::from_millis(1));
        }
        figures.failed();

        assert_eq!((figures.requests.get(), figures.failures.get()), (7, 3));
        assert_eq!(figures.to_json()["latency_us"], json!([[1000, 6]]));
    }
}

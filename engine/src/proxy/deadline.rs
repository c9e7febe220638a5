//! How long a client waits, as it says itself: `grpc-timeout` (the gRPC over HTTP/2 protocol) and
//! `x-request-timeout` (seconds as a decimal number, or with the unit `s` or `ms`). What is left goes on to the
//! instance in the same words, so that nobody works for a client that has gone.
//!
//! A value that is neither is passed on as it came and binds nobody: the service may mean something else by the
//! name.

use std::time::Duration;

use crate::fields::find;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;

static GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
static REQUEST_TIMEOUT: HeaderName = HeaderName::from_static("x-request-timeout");
/// Largest number in `grpc-timeout`: eight digits.
const GRPC_MAX: u128 = 99_999_999;
/// No deadline is further away than this, so that it can be added to any moment.
const FURTHEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// The moment at which the client gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// The earlier one, where the client names two.
    pub at: Instant,
    grpc: bool,
    request: Option<Unit>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Seconds,
    Milliseconds,
}

impl Deadline {
    /// The deadline of a request whose head came in at `arrived`; `None`: it names none.
    pub fn read(headers: &HeaderMap, arrived: Instant) -> Option<Self> {
        let grpc = find(headers, &GRPC_TIMEOUT).and_then(|value| read_grpc(value.as_bytes()));
        let request = find(headers, &REQUEST_TIMEOUT).and_then(|value| read_request(value.as_bytes()));
        let within = grpc.into_iter().chain(request.map(|(within, _)| within)).min()?;
        let at = arrived + within.min(FURTHEST);
        Some(Self { at, grpc: grpc.is_some(), request: request.map(|(_, unit)| unit) })
    }

    /// Writes what is left over what the client said.
    pub fn write(&self, headers: &mut HeaderMap, now: Instant) {
        let left = self.at.saturating_duration_since(now);
        let mut set = |name: &HeaderName, text: String| {
            if let Ok(value) = HeaderValue::try_from(text) {
                headers.insert(name, value);
            }
        };
        if self.grpc {
            set(&GRPC_TIMEOUT, write_grpc(left));
        }
        match self.request {
            Some(Unit::Seconds) => set(&REQUEST_TIMEOUT, format!("{:.3}", left.as_secs_f64())),
            Some(Unit::Milliseconds) => set(&REQUEST_TIMEOUT, format!("{}ms", left.as_millis())),
            None => {}
        }
    }
}

fn read_grpc(text: &[u8]) -> Option<Duration> {
    let (unit, digits) = text.split_last()?;
    let number = read_digits(digits, 8)?;
    match unit {
        b'H' => Some(Duration::from_secs(number * 3600)),
        b'M' => Some(Duration::from_secs(number * 60)),
        b'S' => Some(Duration::from_secs(number)),
        b'm' => Some(Duration::from_millis(number)),
        b'u' => Some(Duration::from_micros(number)),
        b'n' => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

fn write_grpc(left: Duration) -> String {
    let finest = [("u", left.as_micros()), ("m", left.as_millis()), ("S", u128::from(left.as_secs()))];
    let fitting = finest.iter().find(|(_, number)| *number <= GRPC_MAX);
    fitting.map_or_else(|| format!("{GRPC_MAX}S"), |(unit, number)| format!("{number}{unit}"))
}

fn read_request(text: &[u8]) -> Option<(Duration, Unit)> {
    let text = text.trim_ascii();
    let (number, unit) = match (text.strip_suffix(b"ms"), text.strip_suffix(b"s")) {
        (Some(number), _) => (number, Unit::Milliseconds),
        (None, Some(number)) => (number, Unit::Seconds),
        (None, None) => (text, Unit::Seconds),
    };
    let number = number.trim_ascii_end();
    let (whole, fraction) = match number.iter().position(|byte| *byte == b'.') {
        Some(dot) => (&number[..dot], &number[dot + 1..]),
        None => (number, &b"0"[..]),
    };
    let seconds = Duration::from_secs(read_digits(whole, 9)?);
    let digits = u32::try_from(fraction.len()).ok()?;
    let nanos = Duration::from_nanos(read_digits(fraction, 9)? * 10u64.pow(9 - digits));
    let within = seconds + nanos;
    Some((if unit == Unit::Milliseconds { within / 1000 } else { within }, unit))
}

/// A number of 1 to `digits_max` digits and nothing else.
fn read_digits(text: &[u8], digits_max: usize) -> Option<u64> {
    if text.is_empty() || text.len() > digits_max || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_timeouts_are_read_in_each_unit() {
        let read = ["2H", "3M", "4S", "5m", "6u", "7n"].map(|text| read_grpc(text.as_bytes()).unwrap());

        assert_eq!(
            read.map(|time| time.as_nanos()),
            [7_200_000_000_000, 180_000_000_000, 4_000_000_000, 5_000_000, 6_000, 7]
        );
    }

    #[test]
    fn request_timeouts_are_seconds_or_what_the_unit_says() {
        let read = ["2", "0.25", "1.5s", "250ms", "0.5ms", "3 s"].map(|text| read_request(text.as_bytes()).unwrap().0);

        assert_eq!(read.map(|time| time.as_micros()), [2_000_000, 250_000, 1_500_000, 250_000, 500, 3_000_000]);
    }

    #[test]
    fn what_is_no_timeout_binds_nobody() {
        for text in ["", "S", "-1S", "+1S", "1", "1s", "1.5S", "123456789S", "1 S"] {
            assert_eq!(read_grpc(text.as_bytes()), None, "{text:?}");
        }
        for text in ["", "s", "ms", ".5", "1.", "-1", "1e3", "1h", "1.0000000001", "12345678901", "inf"] {
            assert_eq!(read_request(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn the_smaller_one_binds_and_both_are_written_as_what_is_left() {
        let now = Instant::now();
        let mut headers = HeaderMap::new();
        headers.insert(&GRPC_TIMEOUT, HeaderValue::from_static("10S"));
        headers.insert(&REQUEST_TIMEOUT, HeaderValue::from_static("2.000"));
        let deadline = Deadline::read(&headers, now).unwrap();

        deadline.write(&mut headers, now + Duration::from_millis(500));

        assert_eq!(
            (&headers[&GRPC_TIMEOUT], &headers[&REQUEST_TIMEOUT]),
            (&"1500000u".parse().unwrap(), &"1.500".parse().unwrap())
        );
    }

    #[test]
    fn a_long_time_is_written_in_a_coarser_unit() {
        let written = [99, 100, 200_000, 999_999_999_999].map(|seconds| write_grpc(Duration::from_secs(seconds)));

        assert_eq!(written, ["99000000u", "100000m", "200000S", "99999999S"]);
    }
}

//! The hybrid logical clock of the gateway, which follows what passes through: each request and each answer goes on
//! with a stamp above all stamps seen before, so that causes come before effects also across services that know
//! nothing of clocks. The clock itself is [`crate::clock`]; `docs/reference/timestamps.md` says what stamps promise.
//!
//! A stamp comes from anyone who may send a request. The worst it can do is to move the clock ahead by the drift that
//! is allowed; what is further ahead, or no stamp, is replaced like any other.

use std::time::{SystemTime, UNIX_EPOCH};

use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::clock::Clock;
use crate::fields::find;

/// The header of a stamp.
pub static UNISONO_CLOCK: HeaderName = HeaderName::from_static("unisono-clock");
/// 64 bits in hexadecimal.
const LENGTH: usize = 16;
const HEX: &[u8; LENGTH] = b"0123456789abcdef";
/// How far ahead of this machine's time a stamp may be, in milliseconds; as the node has it.
const MAX_DRIFT_MS: u64 = 500;

/// The clock that all workers of a gateway share.
#[derive(Debug)]
pub struct Stamps(Clock);

impl Default for Stamps {
    fn default() -> Self {
        Self(Clock::new(0, MAX_DRIFT_MS))
    }
}

impl Stamps {
    /// A message has come in: what is stamped from here on is above what it bears.
    pub fn see(&self, headers: &HeaderMap) {
        if find(headers, &UNISONO_CLOCK).is_none() {
            return;
        }
        for value in headers.get_all(&UNISONO_CLOCK) {
            if let Some(stamp) = parse(value.as_bytes()) {
                // Refused ones are counted by the clock.
                let _ = self.0.merge(stamp, physical_ms());
            }
        }
    }

    /// A message is about to go out: it gets a stamp in place of any that it bears.
    pub fn write(&self, headers: &mut HeaderMap) {
        if let Ok(value) = HeaderValue::from_bytes(&self.text()) {
            headers.insert(&UNISONO_CLOCK, value);
        }
    }

    /// The stamp of a message that is about to go out.
    pub fn text(&self) -> [u8; LENGTH] {
        let stamp = self.0.now(physical_ms());
        std::array::from_fn(|index| HEX[(stamp >> (60 - 4 * index) & 15) as usize])
    }

    /// Stamps that were too far ahead.
    pub fn refused(&self) -> u64 {
        self.0.refused()
    }
}

/// Sixteen lowercase hexadecimal digits and nothing else.
fn parse(text: &[u8]) -> Option<u64> {
    let is_stamp = text.len() == LENGTH && text.iter().all(|byte| HEX.contains(byte));
    if is_stamp { u64::from_str_radix(std::str::from_utf8(text).ok()?, 16).ok() } else { None }
}

/// This machine's time, in milliseconds since the epoch; 0 where its clock says that the epoch is still to come.
fn physical_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(stamp: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(&UNISONO_CLOCK, HeaderValue::from_str(stamp).unwrap());
        headers
    }

    fn written(stamps: &Stamps) -> u64 {
        let mut headers = headers("not a stamp");
        stamps.write(&mut headers);
        parse(headers[&UNISONO_CLOCK].as_bytes()).unwrap()
    }

    #[test]
    fn what_goes_out_is_above_what_came_in() {
        let stamps = Stamps::default();
        let ahead = (physical_ms() + MAX_DRIFT_MS / 2) << 16;

        stamps.see(&headers(&format!("{ahead:016x}")));

        assert!(written(&stamps) > ahead);
    }

    #[test]
    fn a_stamp_too_far_ahead_is_counted_and_forgotten() {
        let stamps = Stamps::default();
        let hour = (physical_ms() + 3_600_000) << 16;

        stamps.see(&headers(&format!("{hour:016x}")));

        assert_eq!((stamps.refused(), written(&stamps) < hour), (1, true));
    }

    #[test]
    fn what_is_no_stamp_is_not_seen() {
        let stamps = Stamps::default();
        let ahead = format!("{:016x}", (physical_ms() + MAX_DRIFT_MS / 2) << 16);

        for text in [&ahead.to_uppercase(), &ahead[1..], &format!("0{ahead}"), &format!("+{}", &ahead[1..]), ""] {
            stamps.see(&headers(text));
        }

        assert!(written(&stamps) < u64::from_str_radix(&ahead, 16).unwrap());
    }
}

//! What an answer says about how much there is to do: when to come back (`Retry-After`, RFC 9110 section 10.2.3),
//! how many requests the instance has, and the mark of a gateway's own refusals.

use std::time::{Duration, SystemTime};

use http::header::{self, HeaderMap};

/// The header on every answer that a gateway gives itself.
pub const REASON: &str = "unisono-reason";
/// The header in which an instance may say how many requests it works on, from whomever they came.
const IN_FLIGHT: &str = "unisono-in-flight";
/// No target is left alone for longer because it asks for it.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);

/// How long the one who answers asks to be left alone, 30 s at most; `None`: it does not say.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse::<u32>() {
        Ok(seconds) => Duration::from_secs(seconds.into()),
        // A date in the past asks for nothing.
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::now()).unwrap_or_default(),
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

/// How many requests the one who answers says it works on.
pub fn in_flight(headers: &HeaderMap) -> Option<u32> {
    headers.get(IN_FLIGHT)?.to_str().ok()?.trim().parse().ok()
}

/// Whether a gateway says that it, or the service behind it, has too much to do: sending the request again would
/// make that worse.
pub fn is_refusal(headers: &HeaderMap) -> bool {
    headers.contains_key(REASON)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(value: &str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, value.parse().unwrap());
        retry_after(&headers)
    }

    #[test]
    fn seconds_and_dates_are_read_and_bounded() {
        assert_eq!(asked("2"), Some(Duration::from_secs(2)));
        assert_eq!(asked("3600"), Some(RETRY_AFTER_MAX));
        assert_eq!(asked("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        assert_eq!(asked("Fri, 31 Dec 2100 23:59:59 GMT"), Some(RETRY_AFTER_MAX));
        assert_eq!(asked("soon"), None);
    }
}

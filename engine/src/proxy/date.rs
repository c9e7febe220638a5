//! The text of the Date header, made once a second by each worker.

use std::cell::Cell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// An IMF-fixdate (RFC 9110 section 5.6.7) has as many characters.
const LENGTH: usize = 29;

thread_local! {
    /// A second since the epoch and how it is written.
    static WRITTEN: Cell<(u64, [u8; LENGTH])> = const { Cell::new((u64::MAX, [b' '; LENGTH])) };
}

/// This machine's time as the Date header has it.
pub fn text() -> [u8; LENGTH] {
    at(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
}

fn at(second: u64) -> [u8; LENGTH] {
    let (written, text) = WRITTEN.get();
    if written == second {
        return text;
    }
    let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second));
    let mut text = [b' '; LENGTH];
    // All dates that the format knows are of this length.
    for (into, from) in text.iter_mut().zip(date.bytes()) {
        *into = from;
    }
    WRITTEN.set((second, text));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_that_of_its_second_whatever_was_asked_before() {
        let texts = [784_111_777, 784_111_777, 784_111_778].map(at);

        assert_eq!(texts[0], *b"Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(texts[1], texts[0]);
        assert_eq!(texts[2], *b"Sun, 06 Nov 1994 08:49:38 GMT");
    }
}

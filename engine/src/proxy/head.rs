//! A second look at the bytes of request heads. hyper mends some heads in silence that RFC 9112 lets a server
//! refuse and that request smuggling is made of: Transfer-Encoding beside Content-Length, Content-Length
//! twice, lines that end in a bare LF. The gateway answers those with 400.
//!
//! This look decides nothing about framing, which stays hyper's: where the tap loses its place (a pipelined
//! request behind a chunked body) hyper's mending, which is safe, stands alone.

use tokio::time::Instant;

/// Longest head that is taken in; hyper answers 431 to a longer one.
pub const HEAD_MAX: usize = 64 * 1024;

/// How the body behind a head is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Content-Length, or none: so many bytes.
    Length(u64),
    /// Transfer-Encoding: chunked.
    Chunked,
}

/// Keeps the bytes of the head that is coming in.
#[derive(Debug, Default)]
pub struct HeadTap {
    bytes: Vec<u8>,
    /// When the first of `bytes` came in.
    began: Option<Instant>,
    /// Bytes of a body still to come before the next head.
    skip: u64,
    /// True while a body of unknown length comes in.
    lost: bool,
}

impl HeadTap {
    /// Bytes have come in.
    pub fn note(&mut self, bytes: &[u8], now: Instant) {
        let skipped = self.skip.min(bytes.len() as u64);
        self.skip -= skipped;
        let rest = &bytes[skipped as usize..];
        if self.lost || rest.is_empty() || self.bytes.len() >= HEAD_MAX {
            return;
        }
        if self.bytes.is_empty() {
            self.began = Some(now);
        }
        self.bytes.extend_from_slice(rest);
    }

    /// When the head began of which part has come in; `None`: nothing has.
    pub fn began(&self) -> Option<Instant> {
        self.began.filter(|_| !self.bytes.is_empty())
    }

    /// Takes the head that hyper has just parsed out of the tap; says what is wrong with it.
    pub fn take_head(&mut self, framing: Framing) -> Option<&'static str> {
        if self.lost {
            return None;
        }
        let Some(head) = inspect(&self.bytes) else {
            self.bytes.clear();
            return None;
        };
        match framing {
            Framing::Length(length) => {
                let body_here = (self.bytes.len() - head.end).min(usize::try_from(length).unwrap_or(usize::MAX));
                self.skip = length - body_here as u64;
                self.bytes.drain(..head.end + body_here);
            }
            Framing::Chunked => {
                self.bytes.clear();
                self.lost = true;
            }
        }
        head.fault
    }

    /// Whether a body of unknown length has not been read to its end, so that nobody knows where the next head begins.
    pub fn is_lost(&self) -> bool {
        self.lost
    }

    /// A body of unknown length has been read to its end.
    pub fn body_ended(&mut self) {
        self.lost = false;
    }
}

struct Head {
    end: usize,
    fault: Option<&'static str>,
}

/// Finds the end of the first head in `bytes`, and the first fault in it.
fn inspect(bytes: &[u8]) -> Option<Head> {
    let mut at = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    let (mut lengths, mut encodings, mut bare) = (0, 0, false);
    loop {
        let line_end = at + bytes[at..].iter().position(|byte| *byte == b'\n')?;
        let line = &bytes[at..line_end];
        at = line_end + 1;
        let line = if let Some(line) = line.strip_suffix(b"\r") {
            line
        } else {
            bare = true;
            line
        };
        match line.first() {
            None => break,
            Some(b'c' | b'C') if is_field(line, b"content-length") => lengths += 1,
            Some(b't' | b'T') if is_field(line, b"transfer-encoding") => encodings += 1,
            Some(_) => {}
        }
    }
    let fault = match (lengths, encodings, bare) {
        (1.., 1.., _) => Some("it has both Content-Length and Transfer-Encoding; one of them would be right"),
        (2.., _, _) => Some("it has Content-Length more than once; once would be right"),
        (_, 2.., _) => Some("it has Transfer-Encoding more than once; once would be right"),
        (_, _, true) => Some("a line of its head ends in LF alone; CR LF would be right"),
        _ => None,
    };
    Some(Head { end: at, fault })
}

fn is_field(line: &[u8], name: &[u8]) -> bool {
    line.len() > name.len() && line[name.len()] == b':' && line[..name.len()].eq_ignore_ascii_case(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(head: &str) -> Option<&'static str> {
        let mut tap = HeadTap::default();
        tap.note(head.as_bytes(), Instant::now());
        tap.take_head(Framing::Length(0))
    }

    #[test]
    fn a_plain_head_has_no_fault() {
        assert_eq!(fault("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"), None);
    }

    #[test]
    fn ambiguous_framing_is_a_fault_in_either_order() {
        assert!(fault("POST / HTTP/1.1\r\nContent-Length: 1\r\ntransfer-encoding: chunked\r\n\r\n").is_some());
        assert!(fault("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\ncontent-length: 1\r\n\r\n").is_some());
        assert!(fault("POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n").is_some());
    }

    #[test]
    fn a_bare_line_feed_is_a_fault() {
        assert!(fault("GET / HTTP/1.1\nHost: a\r\n\r\n").is_some());
    }

    #[test]
    fn a_body_that_looks_like_a_head_is_skipped() {
        let mut tap = HeadTap::default();
        tap.note(b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nGET", Instant::now());
        tap.take_head(Framing::Length(9));
        tap.note(b" / X\r\nGET / HTTP/1.1\r\nContent-Length: 1\r\n\r\n", Instant::now());

        let second = tap.take_head(Framing::Length(1));

        assert_eq!((second, tap.skip), (None, 1));
    }

    #[test]
    fn pipelined_heads_are_taken_one_by_one() {
        let mut tap = HeadTap::default();
        tap.note(
            b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            Instant::now(),
        );

        let faults = [tap.take_head(Framing::Length(0)).is_some(), tap.take_head(Framing::Length(1)).is_some()];

        assert_eq!(faults, [false, true]);
    }
}

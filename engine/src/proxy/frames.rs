//! A look at the frames that a client sends in HTTP/2, to tell floods: frames that cost the sender next to nothing
//! and keep the gateway busy. Content is not looked at here; h2 reads the frames, and bounds streams, windows,
//! the size of heads, tiny DATA frames that pile up unread, and the resets that it is made to send.
//!
//! Sources: CVE-2019-9511 to 9518 (floods of PING, SETTINGS, RST_STREAM, empty and tiny frames), CVE-2023-44487
//! (rapid reset), CVE-2024-27316 (CONTINUATION), CVE-2025-8671 (resets that the server is made to send).

use std::time::Duration;

use tokio::time::Instant;

use super::piled::{self, Piled};

/// For how long frames are counted together.
const WINDOW: Duration = Duration::from_secs(10);
/// Streams that a client may open and give up in that time.
const RESETS_MAX: u32 = 100;
/// PING, SETTINGS and PRIORITY frames in that time; but for PINGs by which a client measures the way of what it gets.
const IDLE_TALK_MAX: u32 = 200;
/// Bytes of a PING's answer, and of the least frame with content: what a client measures has been sent besides.
const PONG: u64 = 17;
const MEASURED_MIN: u64 = 10;
/// WINDOW_UPDATE frames in that time: one for each KiB of a fast answer is normal, hence many.
const UPDATES_MAX: u32 = 500_000;
/// CONTINUATION frames in a row: heads have 16 KiB, and a frame holds as much.
const CONTINUATIONS_MAX: u32 = 32;
/// What a client says first.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEAD: usize = 9;
const PING: u8 = 6;

/// Counts frames by their heads.
#[derive(Default)]
pub struct FrameTap {
    /// The head that is coming in.
    head: [u8; HEAD],
    got: usize,
    /// Bytes of payload, or preface, still to come before the next head.
    skip: usize,
    began: bool,
    since: Option<Instant>,
    resets: u32,
    idle_talk: u32,
    updates: u32,
    continuations: u32,
    /// Bytes that were sent to the client since it measured last, and the PINGs that came since then.
    sent: u64,
    pings: u64,
    flood: Option<&'static str>,
    /// DATA frames that are still to be taken.
    pub piled: Piled,
}

impl FrameTap {
    /// Bytes have come in.
    pub fn note(&mut self, mut bytes: &[u8], now: Instant) {
        if !self.began {
            (self.began, self.skip) = (true, PREFACE.len());
        }
        if self.since.is_none_or(|since| now.duration_since(since) >= WINDOW) {
            self.since = Some(now);
            (self.resets, self.idle_talk, self.updates) = (0, 0, 0);
        }
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let count = (HEAD - self.got).min(bytes.len());
            if count == 0 {
                return;
            }
            self.head[self.got..self.got + count].copy_from_slice(&bytes[..count]);
            self.got += count;
            bytes = &bytes[count..];
            if self.got == HEAD {
                self.got = 0;
                self.count();
            }
        }
    }

    /// So many bytes were sent to the client.
    pub fn sent(&mut self, count: usize) {
        self.sent += count as u64;
    }

    /// Whether a PING that comes now measures the way of what was sent since the last one that did, as grpc-go's do for
    /// each piece of a stream: one at a time, and never without such a piece.
    fn measures(&mut self) -> bool {
        let is_so = self.sent >= self.pings * PONG + MEASURED_MIN;
        if is_so {
            (self.sent, self.pings) = (0, 0);
        }
        self.pings += 1;
        is_so
    }

    /// What the client does too much of; stays so.
    pub fn flood(&self) -> Option<&'static str> {
        self.flood
    }

    fn count(&mut self) {
        let [a, b, c, kind, ..] = self.head;
        let length = u32::from_be_bytes([0, a, b, c]);
        self.skip = length as usize;
        if kind == 0 && piled::is_tiny(length as usize) {
            self.piled.came();
        }
        if kind == PING && self.measures() {
            return;
        }
        let (count, max, name) = match kind {
            2 | 4 | PING => (&mut self.idle_talk, IDLE_TALK_MAX, "PING, SETTINGS or PRIORITY frames"),
            3 => (&mut self.resets, RESETS_MAX, "RST_STREAM frames"),
            8 => (&mut self.updates, UPDATES_MAX, "WINDOW_UPDATE frames"),
            9 => (&mut self.continuations, CONTINUATIONS_MAX, "CONTINUATION frames"),
            _ => {
                self.continuations = 0;
                return;
            }
        };
        *count += 1;
        if *count > max {
            self.flood.get_or_insert(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, length: usize) -> Vec<u8> {
        let mut frame = vec![0, (length >> 8) as u8, length as u8, kind, 0, 0, 0, 0, 1];
        frame.resize(HEAD + length, b'x');
        frame
    }

    fn tapped(frames: impl IntoIterator<Item = Vec<u8>>) -> FrameTap {
        let mut tap = FrameTap::default();
        let now = Instant::now();
        tap.note(PREFACE, now);
        for frame in frames {
            tap.note(&frame, now);
        }
        tap
    }

    #[test]
    fn what_a_busy_client_sends_is_no_flood() {
        let request = [frame(1, 40), frame(0, 1000), frame(8, 4), frame(3, 4)].concat();

        let tap = tapped(std::iter::repeat_n(request, RESETS_MAX as usize));

        assert_eq!(tap.flood(), None);
    }

    #[test]
    fn each_kind_of_flood_is_told() {
        for (kind, length, count) in [(3, 4, 101), (6, 8, 201), (4, 0, 201), (9, 1, 33)] {
            let tap = tapped(std::iter::repeat_n(frame(kind, length), count));

            assert!(tap.flood().is_some(), "{kind}");
        }
    }

    #[test]
    fn a_ping_for_each_piece_that_was_sent_is_no_flood() {
        let mut tap = tapped([]);
        for _ in 0..10 * IDLE_TALK_MAX {
            tap.sent(HEAD + 5);
            tap.note(&frame(6, 8), Instant::now());
            tap.sent(PONG as usize);
        }

        assert_eq!(tap.flood(), None);
    }

    #[test]
    fn pings_that_get_nothing_but_their_answers_are_one() {
        let mut tap = tapped([]);
        for _ in 0..=IDLE_TALK_MAX {
            tap.note(&[frame(6, 8), frame(6, 8)].concat(), Instant::now());
            tap.sent(2 * PONG as usize);
        }

        assert!(tap.flood().is_some());
    }

    #[test]
    fn frames_are_found_wherever_reads_cut_them() {
        let bytes = std::iter::repeat_n([frame(1, 7), frame(3, 4)].concat(), 101).flatten();

        let tap = tapped(bytes.map(|byte| vec![byte]));

        assert_eq!((tap.flood(), tap.resets), (Some("RST_STREAM frames"), 101));
    }

    #[test]
    fn counts_begin_anew_after_the_window() {
        let mut tap = tapped(std::iter::repeat_n(frame(3, 4), RESETS_MAX as usize));

        tap.note(&frame(3, 4), Instant::now() + WINDOW);

        assert_eq!(tap.flood(), None);
    }
}

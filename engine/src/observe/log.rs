//! The access log: a line for each request, as JSON or in the combined format, written by a thread of its own.
//! A request never waits for the disk: lines that the thread can't keep up with are dropped and counted.
//!
//! Neither query nor headers are written, for that is where secrets are; what is written is escaped, so that no
//! request can forge a line.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;

use super::trace::Trace;
use crate::sync::lock;
use crate::table;

/// Lines that may wait for the writer.
const LINES_MAX: usize = 16 * 1024;
/// Size at which a file becomes `.1`, and `.1` becomes `.2`, up to `.4`.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
const FILES_KEPT: u32 = 4;
/// What was written is in the file after this long at the latest.
const FLUSH_EACH: Duration = Duration::from_millis(200);

/// One try of a request.
pub struct Attempt {
    /// Which instance was asked.
    pub instance: String,
    /// How it ended.
    pub outcome: &'static str,
    /// How long it took.
    pub took: Duration,
}

/// What a line says.
pub struct Line<'a> {
    /// When the request came in.
    pub at: SystemTime,
    /// From where.
    pub client: IpAddr,
    /// As it came.
    pub method: &'a str,
    /// As it came, without the query.
    pub path: &'a str,
    /// 499: the client was gone before its answer began.
    pub status: u16,
    /// Where it went.
    pub service: Option<&'a str>,
    /// Of an answer of the gateway's own, or of an end before the answer's.
    pub reason: Option<&'a str>,
    /// In their order.
    pub attempts: &'a [Attempt],
    /// What it belongs to.
    pub trace: Option<&'a Trace>,
    /// In the queue.
    pub queued: Duration,
    /// To the head of the answer; `None`: there was none.
    pub first_byte: Option<Duration>,
    /// To the end of the answer.
    pub total: Duration,
    /// Of the request's body.
    pub bytes_in: u64,
    /// Of the answer's body.
    pub bytes_out: u64,
}

/// The log of the gateway; none at first.
#[derive(Default)]
pub struct AccessLog {
    on: AtomicBool,
    dropped: AtomicU64,
    writer: Mutex<Option<Writer>>,
}

struct Writer {
    wanted: table::AccessLog,
    lines: SyncSender<String>,
}

impl AccessLog {
    /// Follows the table: begins, goes on, or ends.
    pub fn follow(&self, wanted: Option<&table::AccessLog>) {
        let mut writer = lock(&self.writer);
        if writer.as_ref().map(|writer| &writer.wanted) == wanted {
            return;
        }
        *writer = wanted.map(|wanted| Writer { wanted: wanted.clone(), lines: start(wanted.path.clone()) });
        self.on.store(writer.is_some(), Ordering::Relaxed);
    }

    /// Whether anything is written.
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// Lines that were dropped.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Writes a line, or drops it; never waits for the disk.
    pub fn write(&self, line: &Line<'_>) {
        let writer = lock(&self.writer);
        let Some(writer) = &*writer else { return };
        let text = match writer.wanted.format {
            table::LogFormat::Json => line.json(),
            table::LogFormat::Combined => line.combined(),
        };
        if let Err(TrySendError::Full(_)) = writer.lines.try_send(text) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Line<'_> {
    fn json(&self) -> String {
        let attempts: Vec<_> = self
            .attempts
            .iter()
            .map(|one| json!({ "instance": one.instance, "outcome": one.outcome, "ms": ms(one.took) }))
            .collect();
        let mut text = json!({
            "time": timestamp(self.at),
            "client": self.client,
            "method": self.method,
            "path": self.path,
            "status": self.status,
            "service": self.service,
            "instance": self.attempts.last().map(|one| &one.instance),
            "attempts": attempts,
            "queue_ms": ms(self.queued),
            "first_byte_ms": self.first_byte.map(ms),
            "total_ms": ms(self.total),
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "reason": self.reason,
            "trace_id": self.trace.map(Trace::id),
        })
        .to_string();
        text.push('\n');
        text
    }

    /// As Apache and nginx write it; referrer and user agent are not kept.
    fn combined(&self) -> String {
        let mut path = String::with_capacity(self.path.len());
        for character in self.path.chars() {
            match character {
                '"' | '\\' => path.extend(['\\', character]),
                '\u{20}'..='\u{7e}' => path.push(character),
                other => {
                    let mut bytes = [0; 4];
                    for byte in other.encode_utf8(&mut bytes).bytes() {
                        let _ = write!(path, "\\x{byte:02x}");
                    }
                }
            }
        }
        let Civil { year, month, day, hour, minute, second, .. } = civil(self.at);
        let name = MONTHS[month - 1];
        format!(
            "{} - - [{day:02}/{name}/{year}:{hour:02}:{minute:02}:{second:02} +0000] \"{} {path} HTTP\" {} {} \"-\" \"-\"\n",
            self.client, self.method, self.status, self.bytes_out
        )
    }
}

fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

struct Civil {
    year: u64,
    month: usize,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
    millis: u32,
}

/// A moment in UTC; the days by H. Hinnant's "chrono-compatible low-level date algorithms".
fn civil(at: SystemTime) -> Civil {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, left) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    Civil {
        year: year_of_era + era * 400 + u64::from(month <= 2),
        month: month as usize,
        day: of_year - (153 * shifted_month + 2) / 5 + 1,
        hour: left / 3600,
        minute: left / 60 % 60,
        second: left % 60,
        millis: since.subsec_millis(),
    }
}

/// RFC 3339, to the millisecond.
fn timestamp(at: SystemTime) -> String {
    let Civil { year, month, day, hour, minute, second, millis } = civil(at);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// Starts the thread that writes; it ends when its sender is dropped.
fn start(path: PathBuf) -> SyncSender<String> {
    let (sender, lines) = sync_channel(LINES_MAX);
    let write = move || {
        if let Err(error) = write_down(&path, &lines) {
            eprintln!("gateway: cannot write the access log at {}: {error}", path.display());
        }
    };
    if let Err(error) = std::thread::Builder::new().name("unisono-gw-log".into()).spawn(write) {
        eprintln!("gateway: cannot start the access log: {error}");
    }
    sender
}

fn write_down(path: &Path, lines: &Receiver<String>) -> io::Result<()> {
    let mut file = open(path)?;
    let mut flushed = Instant::now();
    loop {
        let ended = match lines.recv_timeout(FLUSH_EACH) {
            Ok(line) => {
                file.write_all(line.as_bytes())?;
                false
            }
            Err(error) => error == RecvTimeoutError::Disconnected,
        };
        if ended || flushed.elapsed() >= FLUSH_EACH {
            flushed = Instant::now();
            file.flush()?;
            if ended {
                return Ok(());
            }
            if file.get_ref().metadata()?.len() >= FILE_BYTES_MAX {
                rotate(path)?;
                file = open(path)?;
            }
        }
    }
}

fn open(path: &Path) -> io::Result<BufWriter<File>> {
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    Ok(BufWriter::with_capacity(64 * 1024, file))
}

fn rotate(path: &Path) -> io::Result<()> {
    let numbered = |number: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    };
    for number in (1..FILES_KEPT).rev() {
        if numbered(number).exists() {
            std::fs::rename(numbered(number), numbered(number + 1))?;
        }
    }
    std::fs::rename(path, numbered(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line<'a>(path: &'a str, attempts: &'a [Attempt]) -> Line<'a> {
        Line {
            at: UNIX_EPOCH + Duration::from_millis(1_709_210_096_789),
            client: IpAddr::from([127, 0, 0, 1]),
            method: "GET",
            path,
            status: 200,
            service: Some("shop/web"),
            reason: None,
            attempts,
            trace: None,
            queued: Duration::from_micros(1500),
            first_byte: Some(Duration::from_millis(2)),
            total: Duration::from_millis(3),
            bytes_in: 0,
            bytes_out: 5,
        }
    }

    #[test]
    fn a_line_of_json_says_what_happened_when() {
        let attempts = [Attempt { instance: "web-1".into(), outcome: "ok", took: Duration::from_millis(2) }];
        let text = line("/a", &attempts).json();
        let read: serde_json::Value = serde_json::from_str(&text).unwrap();

        assert_eq!((&read["time"], &read["instance"]), (&json!("2024-02-29T12:34:56.789Z"), &json!("web-1")));
        assert_eq!((&read["queue_ms"], &read["attempts"][0]["ms"]), (&json!(1.5), &json!(2.0)));
    }

    #[test]
    fn no_path_forges_a_line() {
        let path = "/a\" 200 5\n127.0.0.1 - - \u{e9}\u{1b}[2J";

        let (json, combined) = (line(path, &[]).json(), line(path, &[]).combined());

        assert_eq!((json.matches('\n').count(), combined.matches('\n').count()), (1, 1));
        assert!(combined.contains(r#"/a\" 200 5\x0a127"#) && combined.contains(r"\xc3\xa9\x1b"), "{combined}");
        assert!(combined.starts_with("127.0.0.1 - - [29/Feb/2024:12:34:56 +0000]"), "{combined}");
    }
}

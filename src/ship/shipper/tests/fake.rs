//! The fake: a server, a clock and a log of the test's own.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::*;
use crate::config;

pub(super) const SECOND: Duration = Duration::from_secs(1);

pub(super) const BATCH_SETTINGS: BatchSettings =
    BatchSettings { flush: SECOND, batch: 64 << 10, retry: Duration::from_secs(60), catch_up: 0 };

/// What a server answers: a status, `Retry-After`, a body; or no answer at all.
type FakeReply = Result<(u16, Option<&'static str>, String), &'static str>;

/// A record as the server gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) id: String,
    pub(super) text: String,
}

impl Sent {
    pub(super) fn document(&self) -> serde_json::Value {
        serde_json::from_str(&self.text).unwrap()
    }
}

/// A request as the server sees it.
pub(super) struct FakeRequest<'a> {
    pub(super) at: Duration,
    pub(super) sent: &'a [Sent],
    pub(super) bytes: usize,
    /// How many came before it.
    pub(super) before: usize,
}

type Server = Box<dyn FnMut(&FakeRequest<'_>, &mut Vec<String>) -> FakeReply>;

/// A folder with a log that goes away with the test.
pub(super) struct TestLog {
    pub(super) dir: PathBuf,
    config: config::Log,
}

impl TestLog {
    pub(super) fn new(segment: u64, budget: u64) -> TestLog {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("onset-shipper-{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        let config = config::Log { dir: dir.clone(), segment, budget, document: 16 << 10, sync: SECOND };
        TestLog { dir, config }
    }

    pub(super) fn writer(&self) -> Writer {
        Writer::open(&self.config).unwrap().0
    }
}

impl Drop for TestLog {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Called while the transport waits: from the time that it is now until at most that time.
pub(super) type Passes = Box<dyn FnMut(Duration, Option<Duration>) -> (Duration, bool)>;

/// The transport of a test: its clock stands still but for what is waited for.
pub(super) struct FakeTransport {
    pub(super) clock: Duration,
    server: Server,
    /// The ids that the server has, in the order in which they came.
    pub(super) index: Vec<String>,
    /// When each request came, and how many records it had.
    pub(super) requests: Vec<(Duration, usize)>,
    pub(super) log_lines: Vec<String>,
    /// When the agent leaves.
    pub(super) leave_at: Duration,
    /// What happens while it waits: a step up to that time at most. Returns the time it came to, and
    /// whether records came.
    pub(super) passes: Passes,
}

impl FakeTransport {
    pub(super) fn new(
        server: impl FnMut(&FakeRequest<'_>, &mut Vec<String>) -> FakeReply + 'static,
    ) -> FakeTransport {
        FakeTransport {
            clock: Duration::from_secs(1000),
            server: Box::new(server),
            index: Vec::new(),
            requests: Vec::new(),
            log_lines: Vec::new(),
            leave_at: Duration::from_secs(100_000),
            passes: Box::new(|now, until| (until.unwrap_or(now), false)),
        }
    }
}

impl Transport for &mut FakeTransport {
    fn now(&self) -> Now {
        let since = u64::try_from(self.clock.as_millis()).unwrap();
        Now { mono: self.clock, wall: Wall(1_795_452_413_007 + since) }
    }

    fn wait(&mut self, until: Option<Duration>) -> Wakeup {
        let until = Some(until.map_or(self.leave_at, |at| at.min(self.leave_at)));
        let (clock, records) = (self.passes)(self.clock, until);
        self.clock = clock.max(self.clock);
        Wakeup { records, batch_settings: None, leave: self.clock >= self.leave_at }
    }

    fn post(&mut self, body: &[u8], reply: &mut Vec<u8>, limit: usize) -> Result<Reply, String> {
        let sent = read(body);
        let request =
            FakeRequest { at: self.clock, sent: &sent, bytes: body.len(), before: self.requests.len() };
        self.requests.push((self.clock, sent.len()));
        let (status, retry_after, text) = (self.server)(&request, &mut self.index)?;
        assert!(text.len() <= limit, "a reply of {} bytes to {} records", text.len(), sent.len());
        *reply = text.into_bytes();
        Ok(Reply { status, retry_after: retry_after.map(str::to_owned) })
    }

    fn name(&self) -> &str {
        "http://es"
    }

    fn say(&mut self, line: &str) {
        self.log_lines.push(line.to_owned());
    }
}

fn read(body: &[u8]) -> Vec<Sent> {
    let text = std::str::from_utf8(body).unwrap();
    assert!(text.ends_with('\n'));
    let lines: Vec<&str> = text.lines().collect();
    // To the letter, so that an hour of documents is not read as JSON.
    let id = |action: &str| {
        let id = action.strip_prefix("{\"create\":{\"_id\":\"").and_then(|rest| rest.strip_suffix("\"}}"));
        id.unwrap().to_owned()
    };
    lines.chunks(2).map(|pair| Sent { id: id(pair[0]), text: pair[1].to_owned() }).collect()
}

/// Answers as a real server does, with a status for each record: 201 or 409 as the index has it,
/// unless `fate` says otherwise.
pub(super) fn answer(
    request: &FakeRequest<'_>,
    index: &mut Vec<String>,
    fate: impl Fn(usize, &Sent) -> Option<u16>,
) -> FakeReply {
    let items: Vec<String> = request
        .sent
        .iter()
        .enumerate()
        .map(|(at, sent)| {
            let status = fate(at, sent).unwrap_or_else(|| {
                if index.contains(&sent.id) {
                    return 409;
                }
                index.push(sent.id.clone());
                201
            });
            let error = match status {
                201 => String::new(),
                _ => format!(",\"error\":{{\"type\":\"fault_{status}\",\"reason\":\"because\"}}"),
            };
            format!("{{\"create\":{{\"_id\":\"{}\",\"status\":{status}{error}}}}}", sent.id)
        })
        .collect();
    Ok((200, None, format!("{{\"errors\":true,\"items\":[{}]}}", items.join(","))))
}

pub(super) fn write(writer: &mut Writer, from: u32, count: u32) -> Vec<String> {
    (from..from + count)
        .map(|number| {
            let document = format!("{{\"number\":{number},\"tracer_data\":{{\"a\":\"{:0200}\"}}}}", number);
            loop {
                let appended = writer.append(|_, to| {
                    to.get_mut(..document.len())?.copy_from_slice(document.as_bytes());
                    Some(document.len())
                });
                // A busy disk makes the real loop count a fault; here every record matters.
                if let Ok(Some(id)) = appended {
                    return id.to_string();
                }
            }
        })
        .collect()
}

/// Runs a shipper to the end of the script. Returns what it counted.
pub(super) fn run(
    fake: &mut FakeTransport,
    dir: &Path,
    progress: &Arc<Progress>,
    batch_settings: BatchSettings,
) -> Arc<OutputStats> {
    let stats = Arc::new(OutputStats::default());
    let position = Position::open(dir, progress, &stats).unwrap();
    Shipper::new(fake, position, batch_settings, 42).run();
    stats
}

pub(super) fn counts(stats: &OutputStats) -> [u64; 3] {
    [&stats.created, &stats.duplicates, &stats.rejected].map(OutputStats::get)
}

/// Where the cursor stands: how many of these are done.
pub(super) fn done(dir: &Path, ids: &[String]) -> usize {
    let (_, done) = Cursor::named(OUTPUT.name, dir).unwrap();
    let done = done.map(|id| id.to_string()).unwrap_or_default();
    ids.iter().filter(|id| **id <= done).count()
}

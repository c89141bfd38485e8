//! Two outputs of one log: the real one, to a server of the test's own, and the example.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use mio::net::TcpListener;

use super::*;
use crate::fixed_buf::FixedBuf;
use crate::log::RecordId;

const SOON: Duration = Duration::from_secs(20);
const BOTH: [OutputSpec; 2] = [ship::OUTPUT, copies::OUTPUT];

/// A server that takes bulk requests while it is up, and answers 503 while it is not.
struct Server {
    url: String,
    up: Arc<AtomicBool>,
    taken: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn new() -> Server {
        let mut listener =
            TcpListener::bind(std::net::SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let (up, taken) = (Arc::new(AtomicBool::new(true)), Arc::new(Mutex::new(Vec::new())));
        let (is_up, takes) = (up.clone(), taken.clone());
        std::thread::spawn(move || {
            // A blocked accept(2) has a descriptor that is not open yet; another test counts those of the process.
            let mut poll = mio::Poll::new().expect("an epoll");
            let readable = mio::Interest::READABLE;
            poll.registry().register(&mut listener, mio::Token(0), readable).expect("registered");
            let mut events = mio::Events::with_capacity(1);
            loop {
                let _ = poll.poll(&mut events, None); // interrupted: once more
                while let Ok((client, _)) = listener.accept() {
                    let (is_up, takes) = (is_up.clone(), takes.clone());
                    let client = TcpStream::from(client);
                    client.set_nonblocking(false).expect("blocking");
                    // One that breaks off is the client's business.
                    std::thread::spawn(move || serve(&client, &is_up, &takes));
                }
            }
        });
        Server { url, up, taken }
    }

    fn taken(&self) -> Vec<String> {
        self.taken.lock().expect("whole").clone()
    }
}

fn serve(mut client: &TcpStream, up: &AtomicBool, taken: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut lines = BufReader::new(client);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if lines.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            length = line.strip_prefix("content-length: ").map_or(length, |n| n.parse().expect("a number"));
        }
        let mut body = vec![0; length];
        lines.read_exact(&mut body)?;
        let body = String::from_utf8(body).expect("UTF-8");
        let ids = body.lines().step_by(2).map(|action| {
            let action: serde_json::Value = serde_json::from_str(action).expect("an action");
            action["create"]["_id"].as_str().expect("an id").to_owned()
        });
        let (status, reply) = if up.load(Ordering::Relaxed) {
            let ids: Vec<_> = ids.collect();
            let item = |id| format!("{{\"create\":{{\"_id\":\"{id}\",\"status\":201}}}}");
            let items: Vec<_> = ids.iter().map(item).collect();
            taken.lock().expect("whole").extend(ids);
            ("200 OK", format!("{{\"items\":[{}]}}", items.join(",")))
        } else {
            ("503 Service Unavailable", String::new())
        };
        write!(client, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{reply}", reply.len())?;
    }
}

/// A log with both outputs.
struct Bench {
    config: Config,
    server: Server,
}

impl Bench {
    fn new(more: &str) -> Bench {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("onset-outputs-{}-{number}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        let server = Server::new();
        let text = format!(
            "[log]\ndir = \"{}\"\n{more}\n[elasticsearch]\nurl = \"{}\"\nflush = \"10ms\"\nretry = \"500ms\"\ncompress = false\n",
            dir.display(),
            server.url
        );
        let config = Config::parse(&text, crate::tracer::TRACERS).expect("valid");
        Bench { config, server }
    }

    /// Opens the log and waits until both outputs have opened their cursors. An output that has not begun counts as
    /// off: it shows no lag, and the log's budget takes records that it never reads.
    fn start(&self) -> (Writer, Outputs) {
        let (writer, _) = Writer::open(&self.config.log).expect("opens");
        let mut outputs = Outputs::new(&BOTH, &self.config, &writer);
        outputs.configure(&self.config);
        await_that("both outputs have begun", || outputs.status().iter().all(|output| output.state != "off"));
        (writer, outputs)
    }

    fn file(&self) -> PathBuf {
        self.config.log.dir.with_extension("ndjson")
    }

    /// The ids in the lines of the copies.
    fn copied(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.file()).unwrap_or_default();
        let id = |line: &str| line.split('"').nth(3).expect("an id").to_owned();
        text.lines().map(id).collect()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.config.log.dir);
        let _ = std::fs::remove_file(self.file());
    }
}

/// Appends documents of `size` bytes, and takes a turn after each.
fn put(writer: &mut Writer, outputs: &mut Outputs, count: usize, size: usize) -> Vec<String> {
    let one = |_| {
        let until = Instant::now() + SOON;
        let id = loop {
            let appended = writer.append(|id: RecordId, to| {
                let text = format!("{{\"tracer_id\":\"{id}\",\"more\":\"{}\"}}", "x".repeat(size));
                to.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
                Some(text.len())
            });
            match appended {
                Ok(Some(id)) => break id.to_string(),
                other => assert!(Instant::now() < until, "{other:?}"), // a busy disk
            }
        };
        outputs.turn(&writer.counters());
        id
    };
    (0..count).map(one).collect()
}

fn await_that(what: &str, is: impl Fn() -> bool) {
    let until = Instant::now() + SOON;
    while !is() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn lag(outputs: &Outputs, name: &str) -> u64 {
    outputs.named(name).expect("it is in the table").progress().lag()
}

#[test]
fn two_outputs_ship_independently_from_their_own_cursors() {
    let bench = Bench::new("");
    let (mut writer, mut outputs) = bench.start();
    let mut ids = put(&mut writer, &mut outputs, 20, 10);
    await_that("both have all", || bench.server.taken() == ids && bench.copied() == ids);
    // One whose other side is away holds up nobody.
    bench.server.up.store(false, Ordering::Relaxed);
    ids.extend(put(&mut writer, &mut outputs, 30, 10));
    await_that("the copies have all", || bench.copied() == ids && lag(&outputs, "copies") == 0);
    assert_eq!((bench.server.taken(), lag(&outputs, "elasticsearch")), (ids[..20].to_vec(), 30));
    await_that("the trouble shows", || {
        let status = outputs.status();
        let states: Vec<_> = status.iter().map(|output| (&*output.name, &*output.state)).collect();
        states == [("elasticsearch", "waiting"), ("copies", "shipping")]
    });
    outputs.leave(SOON);
    drop((writer, outputs));
    // After a restart each goes on where it was.
    bench.server.up.store(true, Ordering::Relaxed);
    let (mut writer, mut outputs) = bench.start();
    ids.extend(put(&mut writer, &mut outputs, 5, 10));
    await_that("both have all", || bench.server.taken() == ids && bench.copied() == ids);
    outputs.leave(SOON);
    for name in ["elasticsearch", "copies"] {
        let (_, done) = crate::log::Cursor::named(name, &bench.config.log.dir).expect("opens");
        assert_eq!(done.map(|id| id.to_string()).as_ref(), ids.last(), "{name}");
    }
}

#[test]
fn dropped_records_are_counted_under_the_output_that_had_not_read_them() {
    let bench = Bench::new("segment = \"1MiB\"\nbudget = \"3MiB\"\ndocument = \"128KiB\"");
    let (mut writer, mut outputs) = bench.start();
    bench.server.up.store(false, Ordering::Relaxed);
    let mut ids = Vec::new();
    for _ in 0..60 {
        ids.extend(put(&mut writer, &mut outputs, 1, 100_000));
        await_that("the copies keep up", || lag(&outputs, "copies") == 0);
    }
    await_that("the copies have all", || bench.copied() == ids);
    writer.flush().expect("synced");
    let dropped = writer.counters().dropped_unshipped;
    assert!(dropped > 0);
    let status = outputs.status();
    let shown: Vec<_> = status.iter().map(|output| (&*output.name, output.dropped, output.created)).collect();
    assert_eq!(shown, [("elasticsearch", dropped, 0), ("copies", 0, 60)]);
    let mut page = FixedBuf::new(1 << 16);
    let mut scrape = Scrape::new(&mut page, &METRICS);
    outputs.scrape(&mut scrape);
    assert_eq!((scrape.missing().count(), scrape.mishaps()), (0, crate::metric::Mishaps::default()));
    let page = String::from_utf8_lossy(&page).into_owned();
    for line in [
        format!("onset_output_dropped_records_total{{output=\"elasticsearch\"}} {dropped}"),
        format!("onset_output_lag_records{{output=\"elasticsearch\"}} {}", 60 - dropped),
        "onset_output_dropped_records_total{output=\"copies\"} 0".to_owned(),
        "onset_output_lag_records{output=\"copies\"} 0".to_owned(),
        "onset_output_documents_total{output=\"copies\",outcome=\"created\"} 60".to_owned(),
        "onset_output_state{output=\"copies\",state=\"shipping\"} 1".to_owned(),
        "onset_output_state{output=\"elasticsearch\",state=\"shipping\"} 0".to_owned(),
        "onset_output_faults_total{output=\"copies\",fault=\"cursor\"} 0".to_owned(),
    ] {
        assert!(page.lines().any(|have| have == line), "{line} in\n{page}");
    }
    outputs.leave(SOON);
}

#[test]
fn the_page_shows_the_code_that_is_compiled() {
    let text = include_str!("../../../docs/how-to-add-an-output.md");
    let code = include_str!("../../../docs/example/copies.rs");
    let blocks: Vec<&str> =
        text.split("```rust\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(blocks.len() >= 2, "{}", blocks.len());
    for block in blocks {
        assert!(code.contains(block.trim_end()), "not in docs/example/copies.rs:\n{block}");
    }
}

#[test]
fn an_output_that_is_disabled_and_enabled_resumes_at_its_cursor() {
    let bench = Bench::new("");
    let off =
        Config::parse(&format!("[log]\ndir = \"{}\"", bench.config.log.dir.display()), &[]).expect("valid");
    let (mut writer, mut outputs) = bench.start();
    let mut ids = put(&mut writer, &mut outputs, 3, 10);
    await_that("the server has all", || bench.server.taken() == ids);
    for _ in 0..2 {
        // At once on again, or once the thread is gone: either way it goes on.
        outputs.configure(&off);
        outputs.configure(&bench.config);
        ids.extend(put(&mut writer, &mut outputs, 1, 10));
        await_that("the server has all", || bench.server.taken() == ids);
        outputs.configure(&off);
        await_that("it is off", || outputs.status()[0].state == "off");
        assert_eq!((&*outputs.status()[0].target, lag(&outputs, "elasticsearch")), ("", 0));
        outputs.configure(&bench.config);
    }
    outputs.leave(SOON);
}

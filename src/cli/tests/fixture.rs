//! What the tests of the commands stand on: a log, a config, an agent's socket.

use std::fs;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use mio::{Events, Poll};
use serde_json::{Value, json};

use super::onset;
use crate::clock::Wall;
use crate::control::{ControlRequest, Server};
use crate::log::{RecordId, Writer};
use crate::sys;

/// A folder with a log, a config that names both, and what is asked of them.
pub(super) struct Fixture {
    folder: PathBuf,
    pub(super) writer: Option<Writer>,
}

impl Fixture {
    pub(super) fn new() -> Fixture {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("onset-cli-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        fs::create_dir(&folder).expect("a new folder");
        let (log, socket) = (folder.join("log"), folder.join("s"));
        let config = format!(
            "socket = {:?}\n[log]\ndir = {:?}\nsegment = \"256KiB\"\nbudget = \"1MiB\"\ndocument = \"64KiB\"\n",
            socket, log
        );
        fs::write(folder.join("onset.toml"), config).expect("a file");
        let mut fixture = Fixture { folder, writer: None };
        let config = crate::config::Config::load(Some(&fixture.path("onset.toml")), &[]).expect("valid");
        let (writer, _) = Writer::open(&config.log).expect("a new log");
        fixture.writer = Some(writer);
        fixture
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> RecordId {
        let writer = self.writer.as_mut().expect("open");
        let filled = writer.append(|_, to| {
            to.get_mut(..bytes.len())?.copy_from_slice(bytes);
            Some(bytes.len())
        });
        filled.expect("a disk").expect("a record")
    }

    /// Writes an event that happened so long ago.
    pub(super) fn event(
        &mut self,
        ago: Duration,
        tracer: &str,
        container: Option<&str>,
        data: Value,
    ) -> RecordId {
        let id = self.writer.as_ref().expect("open").next_id();
        let ago = u64::try_from(ago.as_millis()).expect("a test's time");
        let mut document = json!({
            "hostname": "node-1", "tracer_name": tracer, "tracer_id": id.to_string(),
            "tracer_time": Wall(sys::now().wall.0 - ago).to_string(), "tracer_type": "autotracing",
            "tracer_data": data,
        });
        if let Some(container) = container {
            document["container_id"] = container.into();
        }
        assert_eq!(self.write(document.to_string().as_bytes()), id);
        id
    }

    /// Runs a command with the fixture's config: its exit code and what it said to whom.
    pub(super) fn onset(&self, args: &[&str]) -> (u8, String, String) {
        let config = format!("--config={}", self.path("onset.toml").display());
        let args: Vec<&str> = args.iter().copied().chain([config.as_str()]).collect();
        onset(&args)
    }

    /// What a command prints that has to end well.
    pub(super) fn prints(&self, args: &[&str]) -> String {
        let (code, out, err) = self.onset(args);
        assert_eq!((code, err.as_str()), (0, ""), "{args:?}");
        out
    }

    /// What a command complains of that has to end with 1.
    pub(super) fn fails(&self, args: &[&str]) -> String {
        let (code, _, err) = self.onset(args);
        assert_eq!((code, err.lines().count()), (1, 1), "{args:?}: {err}");
        err
    }

    /// Answers requests as an agent would, on a thread of its own, until one was answered.
    pub(super) fn agent(
        &self,
        reply: impl FnOnce(ControlRequest) -> Value + Send + 'static,
    ) -> thread::JoinHandle<()> {
        const TOKENS: Range<usize> = 0..9;
        let mut poll = Poll::new().expect("epoll");
        let mut server = Server::bind(&self.path("s"), None, poll.registry(), TOKENS).expect("a new socket");
        thread::spawn(move || {
            let mut events = Events::with_capacity(16);
            let mut asked = None;
            let mut reply = Some(reply);
            while reply.is_some() || server.deadline().is_some() {
                poll.poll(&mut events, Some(Duration::from_secs(10))).expect("epoll");
                for event in &events {
                    let mut each = |caller, ask| asked = Some((caller, ask));
                    server.ready(event.token(), sys::now().mono, &mut each);
                }
                if let Some((caller, ask)) = asked.take() {
                    let value = reply.take().expect("asked once")(ask);
                    let told =
                        server.reply(caller, sys::now().mono, |buf| serde_json::to_writer(buf, &value));
                    assert!(told);
                }
            }
        })
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.writer = None;
        let _ = fs::remove_dir_all(&self.folder);
    }
}

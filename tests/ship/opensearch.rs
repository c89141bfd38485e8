//! A real OpenSearch 2 on loopback, in a folder of its own. It can be stopped and started again on
//! the same port and data, as a server in an outage is. It dies with this process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::Value;

use crate::http::{free_port, try_ask};
use crate::rig::{Folder, KillOnDrop, await_that, command, run};

/// A JVM and a node on a busy machine.
const STARTS: Duration = Duration::from_secs(120);

pub struct OpenSearch {
    folder: PathBuf,
    program: PathBuf,
    port: u16,
    running: Option<KillOnDrop>,
}

/// A child that dies with this process. The kernel ends a child when the *thread* that started it
/// ends, and a test is a thread: so a thread that lasts starts it.
pub fn start_lasting(mut command: Command) -> KillOnDrop {
    let (give, take) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let _ = give.send(command.spawn().map_err(|error| format!("{command:?}: {error}")));
        loop {
            std::thread::park();
        }
    });
    KillOnDrop(take.recv().unwrap().unwrap_or_else(|error| panic!("{error}")))
}

/// Where `tests/opensearch/install` has put it. Says so where it has not run, so that a gate can see it.
fn installed(test: &str) -> Option<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/opensearch/install");
    let output = run(command(script).arg("where"));
    if !output.status.success() {
        println!("SKIPPED: {test}: {}", String::from_utf8_lossy(&output.stderr).trim());
        return None;
    }
    Some(String::from_utf8(output.stdout).unwrap().trim().into())
}

impl OpenSearch {
    /// Starts one in a folder; none where it is not installed.
    pub fn start(test: &str, folder: &Path) -> Option<OpenSearch> {
        let program = installed(test)?;
        let mut server = OpenSearch { folder: folder.to_owned(), program, port: free_port(), running: None };
        server.again();
        Some(server)
    }

    /// Starts it on the data and the port that it had, and waits until it takes documents.
    pub fn again(&mut self) {
        assert!(self.running.is_none(), "it runs");
        let log = self.folder.join("opensearch.log");
        let said = std::fs::File::options().create(true).append(true).open(log).unwrap();
        let mut java = command("java");
        // Quick to start and bounded; there is nothing here that the optimizing compiler would pay for.
        java.args(["-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"])
            .arg(format!("{0}:{0}/lib/*", self.program.display()))
            .arg("Server")
            .arg(self.folder.join("opensearch"))
            .arg(self.port.to_string())
            .stdout(said.try_clone().unwrap())
            .stderr(said);
        let mut child = start_lasting(java);
        await_that("OpenSearch to start", STARTS, || {
            if let Some(code) = child.0.try_wait().unwrap() {
                panic!("OpenSearch ended with {code}: {}", self.said());
            }
            let (status, health) = try_ask(self.address(), "GET", "/_cluster/health", None)?;
            (status == 200 && health["status"] != "red").then_some(())
        });
        self.running = Some(child);
    }

    /// Whether it was ended and not started again.
    pub fn is_down(&self) -> bool {
        self.running.is_none()
    }

    /// The end of its own log.
    pub fn said(&self) -> String {
        let text = std::fs::read(self.folder.join("opensearch.log")).unwrap_or_default();
        String::from_utf8_lossy(&text[text.len().saturating_sub(4000)..]).into_owned()
    }

    /// Ends it as a service is ended, and waits until it is gone.
    pub fn stop(&mut self) {
        let mut child = self.running.take().expect("it does not run");
        // SAFETY: takes no pointers; the child is ours and not yet waited for.
        assert_eq!(unsafe { libc::kill(child.0.id().cast_signed(), libc::SIGTERM) }, 0);
        await_that("OpenSearch to end", STARTS, || child.0.try_wait().unwrap());
    }

    /// Ends it at once, as a power failure would.
    pub fn kill(&mut self) {
        drop(self.running.take().expect("it does not run"));
    }

    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// Asks and gives status and body.
    pub fn ask(&self, method: &str, path: &str, body: Option<&str>) -> (u16, Value) {
        try_ask(self.address(), method, path, body)
            .unwrap_or_else(|| panic!("no answer to {method} {path}: {}", self.said()))
    }

    pub fn get(&self, path: &str) -> (u16, Value) {
        self.ask("GET", path, None)
    }

    pub fn post(&self, path: &str, body: &str) -> (u16, Value) {
        self.ask("POST", path, Some(body))
    }

    /// The documents of an index that a query finds, those just written among them; 10,000 at most.
    pub fn found(&self, index: &str, query: &Value) -> Vec<Value> {
        let (status, body) = self.post(&format!("/{index}/_refresh"), "");
        assert_eq!(status, 200, "{body:#}");
        let query = serde_json::json!({ "size": 10_000, "query": query }).to_string();
        let (status, body) = self.post(&format!("/{index}/_search"), &query);
        assert_eq!(status, 200, "{body:#}");
        body["hits"]["hits"].as_array().unwrap().clone()
    }

    /// How many documents an index holds, those just written among them; 0 where there is none.
    pub fn count(&self, index: &str) -> u64 {
        self.post(&format!("/{index}/_refresh"), "");
        let (status, body) = self.get(&format!("/{index}/_count"));
        assert!(status == 200 || status == 404, "{body:#}");
        body["count"].as_u64().unwrap_or(0)
    }
}

static SHARED: Mutex<Option<Arc<Shared>>> = Mutex::new(None);

struct Shared {
    server: OpenSearch,
    _folder: Folder, // goes after the server
}

/// One server for all tests of this binary, that nobody stops: each has indices of its own.
pub struct Borrowed(Arc<Shared>);

impl std::ops::Deref for Borrowed {
    type Target = OpenSearch;

    fn deref(&self) -> &OpenSearch {
        &self.0.server
    }
}

/// The shared server, started by whoever asks first; none where it is not installed.
pub fn shared(test: &str) -> Option<Borrowed> {
    let mut shared = lock();
    if shared.is_none() {
        let folder = Folder::new();
        let server = OpenSearch::start(test, &folder.0)?;
        *shared = Some(Arc::new(Shared { server, _folder: folder }));
        // SAFETY: `end` takes no arguments and does not unwind. Statics are never dropped, and the
        // folder would stay.
        unsafe { libc::atexit(end) };
    }
    shared.clone().map(Borrowed)
}

extern "C" fn end() {
    drop(lock().take());
}

fn lock() -> MutexGuard<'static, Option<Arc<Shared>>> {
    SHARED.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

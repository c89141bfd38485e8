//! One running agent with a folder of its own, and the tools that tests look at it with. All
//! waiting has a deadline; every process dies with the test that started it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The one that is tested: that of this build, or the one that `ONSET_TESTED` names.
pub struct Tested;
pub const ONSET: Tested = Tested;

impl AsRef<std::ffi::OsStr> for Tested {
    fn as_ref(&self) -> &std::ffi::OsStr {
        static NAMED: LazyLock<Option<std::ffi::OsString>> =
            LazyLock::new(|| std::env::var_os("ONSET_TESTED"));
        NAMED.as_deref().unwrap_or(env!("CARGO_BIN_EXE_onset").as_ref())
    }
}

impl AsRef<Path> for Tested {
    fn as_ref(&self) -> &Path {
        let name: &std::ffi::OsStr = self.as_ref();
        Path::new(name)
    }
}

/// What a machine under load may take for something that is usually at once.
pub const SOON: Duration = Duration::from_secs(20);

/// Without root nothing here can run. Says so, so that a gate can see it.
pub fn root(test: &str) -> bool {
    let root = onset::sys::is_root();
    if !root {
        println!("SKIPPED: {test} needs root");
    }
    root
}

/// For how many seconds a capture lasts in which others do their work: an emulated machine is slow.
pub fn window() -> &'static str {
    if in_lab() { "25" } else { "6" }
}

/// What makes devices runs in a VM of the lab, never on the machine itself.
pub fn lab() {
    assert!(in_lab(), "run it by `make lab`");
}

fn in_lab() -> bool {
    static LAB: LazyLock<bool> = LazyLock::new(|| {
        let line = std::fs::read_to_string("/proc/cmdline").unwrap();
        line.split_ascii_whitespace().any(|word| word == "onset_lab=1")
    });
    *LAB
}

/// An emulated machine takes longer for everything.
fn patient(within: Duration) -> Duration {
    if in_lab() { within * 3 } else { within }
}

/// How much of a share may be chance: there are fewer samples where a machine is emulated.
pub fn chance() -> f64 {
    if in_lab() { 0.35 } else { 0.1 }
}

/// How far two looks at the same thing may lie apart, in milliseconds: a VM there is emulated.
pub fn apart() -> u64 {
    if in_lab() { 3000 } else { 100 }
}

/// Asks until there is an answer. Panics with what was waited for.
pub fn await_that<T>(what: &str, within: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let (began, within) = (Instant::now(), patient(within));
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(began.elapsed() < within, "waited {within:?} for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A command that dies with this process and reads nothing from us.
pub fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null());
    // SAFETY: prctl(2) is all that is called between fork and exec, and it is async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
    command
}

/// A child that is killed when it is dropped.
pub struct KillOnDrop(pub Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        // One that is in D state is not gone until it is let go, and must not hold the test up.
        let end = Instant::now() + Duration::from_secs(2);
        while Instant::now() < end && matches!(self.0.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

pub fn start(command: &mut Command) -> KillOnDrop {
    KillOnDrop(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Runs a command that must succeed.
pub fn done(command: &mut Command) -> String {
    let output = run(command);
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A folder that goes away with the test. Its name is what the gate looks for to tidy up.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new() -> Folder {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("onset-live-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Lines of a stream, as they come.
pub struct Lines(Mutex<Receiver<String>>);

impl Lines {
    pub fn of(stream: impl Read + Send + 'static) -> Lines {
        let (give, take) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                if give.send(line).is_err() {
                    break;
                }
            }
        });
        Lines(Mutex::new(take))
    }

    /// The next line that fits, the others passed over.
    pub fn wait<T>(&self, what: &str, within: Duration, mut fits: impl FnMut(&str) -> Option<T>) -> T {
        let end = Instant::now() + patient(within);
        let mut passed = Vec::new();
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.0.lock().unwrap().recv_timeout(left) {
                Ok(line) => match fits(&line) {
                    Some(value) => return value,
                    None => passed.push(line),
                },
                Err(error) => panic!("no {what} within {within:?} ({error}); passed over: {passed:#?}"),
            }
        }
    }

    /// Those that have come.
    pub fn come(&self) -> Vec<String> {
        self.0.lock().unwrap().try_iter().collect()
    }
}

/// A running agent.
pub struct Agent {
    pub folder: Folder,
    pub config: PathBuf,
    pub child: KillOnDrop,
    pub said: Lines,
    pub address: SocketAddr,
}

/// A config in a folder of its own: its paths, then `rest`.
pub fn config(folder: &Folder, top: &str, rest: &str) -> PathBuf {
    let at = folder.0.display();
    let text = format!(
        "socket = \"{at}/socket\"\n{top}\n[http]\nlisten = \"127.0.0.1:0\"\n[log]\ndir = \"{at}/log\"\nsegment = \"4MiB\"\nbudget = \"64MiB\"\n{rest}"
    );
    folder.file("onset.toml", &text)
}

/// All tracers off but those that `rest` sets up.
pub fn only(tracer: &str, keys: &str) -> String {
    let off = onset::tracer::TRACERS.iter().map(|spec| spec.name).filter(|name| *name != tracer);
    let off: String = off.map(|name| format!("[tracer.{name}]\nenabled = false\n")).collect();
    format!("{off}[tracer.{tracer}]\n{keys}\n[capture]\nbudget_percent = 100\n")
}

impl Agent {
    pub fn start(rest: &str) -> Agent {
        let folder = Folder::new();
        let config = config(&folder, "", rest);
        Agent::start_in(folder, config)
    }

    pub fn start_in(folder: Folder, config: PathBuf) -> Agent {
        let (child, said, address) = Agent::spawn(&mut command(ONSET), &config);
        Agent { folder, config, child, said, address }
    }

    /// One that another command runs, which is given onset's arguments.
    pub fn start_by(by: &mut Command, folder: Folder, config: PathBuf) -> Agent {
        let (child, said, address) = Agent::spawn(by, &config);
        Agent { folder, config, child, said, address }
    }

    fn spawn(by: &mut Command, config: &Path) -> (KillOnDrop, Lines, SocketAddr) {
        let mut child =
            start(by.arg("run").arg("--config").arg(config).stdout(Stdio::null()).stderr(Stdio::piped()));
        let said = Lines::of(child.0.stderr.take().unwrap());
        let address = said.wait("ready line", SOON, |line| {
            let (_, rest) = line.split_once(" ready: ")?;
            let (_, rest) = rest.split_once("http://")?;
            rest.split('/').next()?.parse().ok()
        });
        (child, said, address)
    }

    /// Starts it again on the same config, after it died.
    pub fn again(&mut self) {
        let (child, said, address) = Agent::spawn(&mut command(ONSET), &self.config);
        (self.child, self.said, self.address) = (child, said, address);
    }

    pub fn pid(&self) -> u32 {
        self.child.0.id()
    }

    pub fn signal(&self, signal: libc::c_int) {
        // SAFETY: takes no pointers; the child is ours and not yet waited for.
        assert_eq!(unsafe { libc::kill(self.pid().cast_signed(), signal) }, 0);
    }

    pub fn log(&self) -> PathBuf {
        self.folder.0.join("log")
    }

    /// A command of onset's with this agent's config.
    pub fn onset(&self, arguments: &[&str]) -> Command {
        let mut onset = command(ONSET);
        let (name, rest) = arguments.split_first().unwrap();
        onset.arg(name).arg("--config").arg(&self.config).args(rest);
        onset
    }

    /// All events in the log.
    pub fn events(&self) -> Vec<Value> {
        let text = done(&mut self.onset(&["events", "--json"]));
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Waits until the log holds an event that fits.
    pub fn event(&self, what: &str, within: Duration, fits: impl Fn(&Value) -> bool) -> Value {
        await_that(what, within, || {
            std::thread::sleep(Duration::from_millis(50));
            self.events().into_iter().find(|event| fits(event))
        })
    }

    pub fn get(&self, path: &str) -> (u16, String) {
        get(self.address, path)
    }

    /// The value of one sample on the page of metrics, as it stands there.
    pub fn metric(&self, sample: &str) -> Option<f64> {
        let (_, page) = self.get("/metrics");
        let line =
            page.lines().find(|line| line.strip_prefix(sample).is_some_and(|rest| rest.starts_with(' ')))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    /// Asks it to leave and gives its exit code.
    pub fn leave(mut self) -> Option<i32> {
        self.signal(libc::SIGTERM);
        let child = &mut self.child.0;
        await_that("the agent to leave", SOON, || child.try_wait().unwrap()).code()
    }
}

/// One GET on a connection of its own.
pub fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    let (head, body) =
        reply.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no reply to {path}: {reply:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

/// Compiles a small C program whose functions can be told apart in a flame graph.
pub fn compile(folder: &Folder, name: &str, source: &str) -> PathBuf {
    let binary = folder.0.join(name);
    let file = folder.file(&format!("{name}.c"), source);
    done(
        command("cc")
            .args(["-O0", "-fno-omit-frame-pointer", "-Wl,--build-id", "-o"])
            .arg(&binary)
            .arg(&file),
    );
    binary
}

/// A text field of an event, by its path.
pub fn text<'v>(event: &'v Value, path: &str) -> &'v str {
    event.pointer(path).and_then(Value::as_str).unwrap_or_else(|| panic!("no {path} in {event:#}"))
}

/// A number in an event, by its path.
pub fn number(event: &Value, path: &str) -> f64 {
    event.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("no {path} in {event:#}"))
}

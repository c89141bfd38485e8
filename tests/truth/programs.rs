//! Programs that do a known amount of work: they wait for a word to begin, say what they did, and stay
//! until they are let go, so that what the kernel counted of them can be read.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{ChildStdin, Command, Stdio};
use std::time::Duration;

use crate::cgroup::Cgroup;
use crate::names::Built;
use crate::rig::{Folder, KillOnDrop, Lines, SOON, await_that, command, compile};

pub struct Programs {
    pub folder: Folder,
    pub burn: PathBuf,
    pub touch: PathBuf,
    pub write: PathBuf,
    pub stick: PathBuf,
    pub eat: PathBuf,
    /// Those whose functions are named.
    pub built: Built,
}

impl Programs {
    pub fn new() -> Programs {
        let folder = Folder::new();
        Programs {
            burn: compile(&folder, "burn", include_str!("programs/burn.c")),
            touch: compile(&folder, "touch", include_str!("programs/touch.c")),
            write: compile(&folder, "write", include_str!("programs/write.c")),
            stick: compile(&folder, "stick", include_str!("programs/stick.c")),
            eat: compile(&folder, "eat", include_str!("programs/eat.c")),
            built: Built::new(),
            folder,
        }
    }
}

/// A program on one CPU.
pub fn pinned(cpu: u32, program: &PathBuf) -> Command {
    let mut taskset = command("taskset");
    taskset.args(["-c", &cpu.to_string()]).arg(program);
    taskset
}

/// One that waits for the word.
pub struct Worker {
    child: KillOnDrop,
    to: ChildStdin,
    said: Lines,
}

impl Worker {
    /// Starts it in a container, and waits until it sleeps: it waits for the word then.
    pub fn in_container(cgroup: &Cgroup, by: &mut Command, comm: &str) -> Worker {
        let mut child = cgroup.start(by.stdin(Stdio::piped()).stdout(Stdio::piped()));
        let worker = Worker {
            to: child.0.stdin.take().unwrap(),
            said: Lines::of(child.0.stdout.take().unwrap()),
            child,
        };
        let pid = worker.pid();
        await_that("a program that waits for the word", SOON, || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            stat.contains(&format!("({comm}) S ")).then_some(())
        });
        worker
    }

    pub fn pid(&self) -> u32 {
        self.child.0.id()
    }

    /// Gives it the word, for so long.
    pub fn go(&mut self, lasting: Duration) {
        writeln!(self.to, "{}", lasting.as_millis()).unwrap();
    }

    /// Waits for a line.
    pub fn says<T>(&self, what: &str, fits: impl FnMut(&str) -> Option<T>) -> T {
        self.said.wait(what, SOON + Duration::from_secs(10), fits)
    }

    pub fn is_done(&self) {
        self.says("word that it is done", |line| (line == "done").then_some(()));
    }
}

//! One agent, and windows in which captures run side by side. Loads begin once all captures of their
//! window watch, and are over before the first of them ends: so what is true of a load needs no clock.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::accounts::stolen;
use crate::cgroup::Cgroup;
use crate::neighbours::Outweighed;
use crate::programs::Programs;
use crate::rig::{Agent, Folder, KillOnDrop, SOON, await_that, done, number, start};
use crate::row::Measured;
use crate::who::Renamed;

/// How long a capture of the first window's lasts.
pub const CAPTURE: Duration = Duration::from_secs(10);

/// A load is over by so much before the first capture is, and lasts as long as it can.
const MARGIN: Duration = Duration::from_millis(1500);

/// A load of less is too little to be measured.
const SHORTEST: Duration = Duration::from_secs(2);

/// How often a window is played until all loads are over in time, and its CPUs were its own.
const TRIES: u32 = 4;

/// A hypervisor may take this much of a window: the least that the kernel tells.
const STOLEN_MAX: Duration = Duration::from_millis(10);

/// Measures something in a window of its own or beside others.
pub type Subject = fn(&Window) -> Vec<Measured>;

pub struct Stage {
    pub agent: Agent,
    pub programs: Programs,
    /// Where docker keeps its containers.
    pub docker: Folder,
    pub renamed: Renamed,
    _outweighed: Outweighed,
}

/// Every tracer, none of which fires by itself but `oom`.
fn config(docker: &Path) -> String {
    let tracers = [
        ("cpuidle", "every = \"1h\""),
        ("cpusys", "every = \"2s\"\nsystem_percent = 100\nsustained_samples = 0"),
        ("dload", "every = \"2s\"\nload = 100000\nstuck = \"24h\"\nsustained_samples = 0"),
        ("waitrate", "every = \"1h\"\nprobe_every = \"1h\""),
        ("memburst", "every = \"1s\"\ncapture = \"100ms\"\nsustained_samples = 0\nhost_percent = 100"),
        ("iotracing", "every = \"1h\"\ntop = 100\nfiles = 100"),
        ("oom", ""),
    ];
    let tracers: String = onset::tracer::TRACERS
        .iter()
        .map(|spec| match tracers.iter().find(|(name, _)| *name == spec.name) {
            Some((name, keys)) => format!("[tracer.{name}]\n{keys}\n"),
            None => format!("[tracer.{}]\nenabled = false\n", spec.name),
        })
        .collect();
    format!("[capture]\nbudget_percent = 100\n[containers]\ndocker = [{docker:?}]\n{tracers}")
}

impl Stage {
    pub fn new() -> Stage {
        let docker = Folder::new();
        let agent = Agent::start(&config(&docker.0));
        confined(agent.pid());
        let renamed = Renamed::new(&docker.0);
        Stage { agent, programs: Programs::new(), docker, renamed, _outweighed: Outweighed::new() }
    }

    /// Plays one window: all its subjects at once. Where someone else has the CPUs, a load may outlast its
    /// capture: then nothing is known, and it is played again.
    pub fn play(&self, round: usize, subjects: &[Subject]) -> Vec<Measured> {
        for number in 1..=TRIES {
            let Some((seen, stolen)) = self.play_once(round, subjects) else {
                println!("SECOND TRY: a load of round {round} began before its capture, or outlasted it");
                continue;
            };
            // Where it takes as much in each try, that is how this machine is.
            if stolen <= STOLEN_MAX || number == TRIES {
                return seen;
            }
            println!("SECOND TRY: in round {round} the hypervisor gave {stolen:?} of CPU time to others");
        }
        panic!("loads began before their captures, or outlasted them, {TRIES} times");
    }

    /// What was measured, and what a hypervisor took meanwhile.
    fn play_once(&self, round: usize, subjects: &[Subject]) -> Option<(Vec<Measured>, Duration)> {
        let gate = Gate::new(subjects.len());
        let window = Window { stage: self, round, gate, idle: self.attached(), late: AtomicBool::new(false) };
        let (seen, before) = std::thread::scope(|scope| {
            let all: Vec<_> = subjects.iter().map(|subject| scope.spawn(|| window.run(*subject))).collect();
            let watch = Fails(&window.gate);
            window.open_when_all_watch();
            let before = stolen();
            std::mem::forget(watch);
            (all.into_iter().map(|one| one.join()).collect::<Vec<_>>(), before)
        });
        let stolen = stolen().saturating_sub(before);
        let seen = seen.into_iter().map(|seen| seen.unwrap_or_else(|why| std::panic::resume_unwind(why)));
        let seen: Vec<Measured> = seen.flatten().collect();
        (!window.late.into_inner()).then_some((seen, stolen))
    }

    pub fn leave(self) -> Option<i32> {
        self.agent.leave()
    }

    /// What of the agent is attached to the kernel: links of programs, and perf events.
    fn attached(&self) -> usize {
        let files = fs::read_dir(format!("/proc/{}/fd", self.agent.pid())).unwrap().flatten();
        let to = files.filter_map(|file| fs::read_link(file.path()).ok());
        to.filter(|to| {
            ["anon_inode:bpf_link", "anon_inode:[perf_event]"].iter().any(|it| to == Path::new(it))
        })
        .count()
    }

    fn captures_open(&self) -> u64 {
        let status = done(&mut self.agent.onset(&["status", "--json"]));
        serde_json::from_str::<Value>(&status).unwrap()["captures_open"].as_u64().unwrap()
    }
}

/// It is what is deployed: few rights, and a filter of system calls over it.
fn confined(pid: u32) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    for line in ["NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(status.contains(line), "the agent is not confined: {status}");
    }
}

/// Some time in which all watch.
pub struct Window<'s> {
    pub stage: &'s Stage,
    pub round: usize,
    gate: Gate,
    /// What was attached before.
    idle: usize,
    /// A load outlasted its capture.
    late: AtomicBool,
}

impl Window<'_> {
    fn run(&self, subject: Subject) -> Vec<Measured> {
        // Whoever fails must not be waited for.
        let watch = Fails(&self.gate);
        let seen = subject(self);
        std::mem::forget(watch);
        seen
    }

    /// Asks for a capture.
    pub fn capture(&self, tracer: &str, cgroup: Option<&Cgroup>, lasting: Duration) -> PendingCapture<'_> {
        let agent = &self.stage.agent;
        let seconds = lasting.as_secs().to_string();
        let mut trigger = agent.onset(&["trigger", tracer, "--seconds", &seconds]);
        if let Some(cgroup) = cgroup {
            trigger.args(["--container", &cgroup.id]);
        }
        let at = Instant::now();
        let child = start(trigger.stdout(Stdio::piped()).stderr(Stdio::piped()));
        self.gate.change(|state| state.asked_for(at + lasting));
        PendingCapture { stage: self.stage, child, at }
    }

    /// Waits until a container is known to the agent.
    pub fn known(&self, cgroup: &Cgroup) {
        await_that("the container to be known", SOON, || {
            let listed = done(&mut self.stage.agent.onset(&["containers", "--json"]));
            listed.contains(&cgroup.id).then_some(())
        });
    }

    /// Waits until all captures of this window watch. For how long they will.
    pub fn begin(&self) -> Duration {
        self.gate.change(|state| state.arrived += 1);
        self.gate.wait(|state| state.open);
        let lasting = self.gate.state.lock().unwrap().lasting;
        if lasting.is_some_and(|lasting| lasting < SHORTEST) {
            self.spoil();
        }
        lasting.unwrap_or_default().max(Duration::from_millis(1))
    }

    /// Has this window played again if this capture may have begun after it did.
    pub fn watched_by(&self, answered: &FinishedCapture) {
        let began = answered.asked + answered.took - Duration::from_secs_f64(lasted(&answered.event));
        if self.gate.state.lock().unwrap().opened.is_none_or(|opened| began > opened) {
            self.spoil();
        }
    }

    /// Has this window played again: something came too late for it.
    pub fn spoil(&self) {
        self.late.store(true, Ordering::SeqCst);
    }

    fn open_when_all_watch(&self) {
        let asked = self.gate.wait(|state| state.arrived == self.gate.all);
        let opened = await_that("all captures to be open", SOON, || {
            (self.stage.captures_open() >= asked).then(Instant::now)
        });
        // They are attached one after the other, each for itself: then their number stays.
        let mut last = (0, opened);
        await_that("all programs to be attached", SOON, || {
            let now = self.stage.attached();
            if now != last.0 {
                last = (now, Instant::now());
            }
            (now > self.idle && last.1.elapsed() > Duration::from_millis(300)).then_some(())
        });
        self.gate.change(State::open);
    }
}

/// A capture that was asked for.
pub struct PendingCapture<'s> {
    stage: &'s Stage,
    child: KillOnDrop,
    at: Instant,
}

/// What a capture told, and when: from the question to the answer.
pub struct FinishedCapture {
    pub event: Value,
    pub asked: Instant,
    pub took: Duration,
}

impl PendingCapture<'_> {
    /// The load is over: it was watched to its end if the capture still runs.
    pub fn outlasts(&mut self, window: &Window<'_>) {
        if !matches!(self.child.0.try_wait(), Ok(None)) {
            window.spoil();
        }
    }

    pub fn event(mut self) -> Value {
        self.answer().event
    }

    pub fn answer(&mut self) -> FinishedCapture {
        let child: &mut Child = &mut self.child.0;
        let status = await_that("an answer", SOON * 3, || child.try_wait().unwrap());
        let took = self.at.elapsed();
        let read = |from: Option<&mut dyn std::io::Read>| {
            let mut text = String::new();
            from.unwrap().read_to_string(&mut text).unwrap();
            text
        };
        let id = read(child.stdout.as_mut().map(|it| it as _));
        assert!(status.success(), "{}", read(child.stderr.as_mut().map(|it| it as _)));
        let find = || self.stage.agent.events().into_iter().find(|event| event["tracer_id"] == id.trim());
        FinishedCapture { event: await_that("the event", SOON, find), asked: self.at, took }
    }
}

/// How long a capture lasted, in seconds.
pub fn lasted(event: &Value) -> f64 {
    number(event, "/tracer_data/duration_ms") / 1000.0
}

#[derive(Default)]
struct State {
    arrived: usize,
    asked: u64,
    /// When the first capture ends.
    ends: Option<Instant>,
    open: bool,
    opened: Option<Instant>,
    /// From then on, how long a load may last, if there is a capture.
    lasting: Option<Duration>,
    broken: bool,
}

impl State {
    /// A capture is asked for, which ends then. One that begins later is not waited for.
    fn asked_for(&mut self, ends: Instant) {
        if !self.open {
            self.asked += 1;
            self.ends = Some(self.ends.map_or(ends, |first| first.min(ends)));
        }
    }

    fn open(&mut self) {
        let now = Instant::now();
        let left = self.ends.map(|ends| ends.saturating_duration_since(now));
        self.lasting = left.map(|left| left.saturating_sub(MARGIN));
        self.opened = Some(now);
        self.open = true;
    }
}

/// Where all subjects wait for each other.
struct Gate {
    all: usize,
    state: Mutex<State>,
    changed: Condvar,
}

/// Lets all others go when this one fails.
struct Fails<'g>(&'g Gate);

impl Drop for Fails<'_> {
    fn drop(&mut self) {
        self.0.change(|state| state.broken = true);
    }
}

impl Gate {
    fn new(all: usize) -> Gate {
        Gate { all, state: Mutex::default(), changed: Condvar::new() }
    }

    fn change(&self, how: impl FnOnce(&mut State)) {
        how(&mut self.state.lock().unwrap());
        self.changed.notify_all();
    }

    /// How many captures have been asked for by then.
    fn wait(&self, until: impl Fn(&State) -> bool) -> u64 {
        let state = self.state.lock().unwrap();
        let state = self.changed.wait_while(state, |state| !state.broken && !until(state)).unwrap();
        let (broken, asked) = (state.broken, state.asked);
        // A panic must not poison it: the others are to fail for this reason alone.
        drop(state);
        assert!(!broken, "another subject of this window failed");
        asked
    }
}

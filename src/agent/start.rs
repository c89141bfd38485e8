//! From a config to an agent that is ready. What goes wrong here ends the program with a word on
//! the remedy; after `ready` nothing does.

use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mio::unix::SourceFd;
use mio::{Interest, Poll, Token, Waker};

use crate::capture::{Captures, Hierarchy};
use crate::capture_data::CaptureKind;
use crate::config::{Config, ConfiguredTracer};
use crate::confine;
use crate::container_names::NameResolver;
use crate::host::cgroup_source::CgroupSource;
use crate::host::{Containers, Mode, Reader};
use crate::log::Writer;
use crate::metric::Mishaps;
use crate::sys::{self, Signals};
use crate::tracer::{Capacity, REGISTRY, Registry};
use crate::{control, host, http, log};

use super::hooks::attach_hook;
use super::host_name::HostName;
use super::outputs::{OUTPUTS, Outputs};
use super::pressure::PsiTrigger;
use super::process::Process;
use super::slot::{Slot, State};
use super::tracer_context::SharedState;
use super::tracer_slots::TracerSlots;
use super::{
    Agent, AgentFaults, CONTAINERS, CONTROL, HOST_NAME, HTTP, PRESSURES, RESCAN, SIGNALS, TIMERS, WAKE,
    metrics, support,
};

/// The largest page of metrics: 5,000 containers with every family.
const PAGE_MAX: usize = 8 << 20;

/// Connections at once: scrapers and people, and people alone.
const HTTP_MAX: usize = 16;
const CONTROL_MAX: usize = 8;

/// Why the agent could not start, or end well.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log.
    #[error("{0}")]
    Log(#[from] log::Error),
    /// The endpoint.
    #[error("{0}")]
    Http(#[from] http::Error),
    /// The socket.
    #[error("{0}")]
    Control(#[from] control::Error),
    /// The host's trees.
    #[error("{0}")]
    Host(#[from] host::Error),
    /// The kernel refused something that it always has.
    #[error("cannot make {what}: {source}; the limit on open files may be too low (ulimit -n)")]
    Kernel {
        /// What was to be made.
        what: &'static str,
        /// The kernel's word.
        source: io::Error,
    },
}

fn kernel(what: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Kernel { what, source }
}

impl Agent {
    /// Opens the endpoint, the socket and the host's trees, and loads the BPF programs. Then it gives
    /// its rights away, before it starts a thread or opens the log: what could not be done without
    /// them later fails now.
    pub fn start(config: Config, config_file: Option<PathBuf>) -> Result<Agent, Error> {
        Agent::start_with(config, config_file, REGISTRY)
    }

    /// The same, with the tracers of this registry; a reload reads the config by it, too.
    pub(super) fn start_with(
        config: Config,
        config_file: Option<PathBuf>,
        registry: Registry<'static>,
    ) -> Result<Agent, Error> {
        let started = sys::now();
        // Signals first: threads that are started later must not take them.
        let signals =
            Signals::take(&[libc::SIGTERM, libc::SIGINT, libc::SIGHUP]).map_err(kernel("a signalfd"))?;
        // A refusal leaves the old limit, and what does not fit that is counted as a fault.
        let _ = sys::raise_open_files();
        let poll = Poll::new().map_err(kernel("an epoll"))?;
        let (http, control) = listen(&config, &poll)?;
        let mut reader = Reader::open(&config.paths, config.containers)?;
        register(&poll, reader.fd(), CONTAINERS, Interest::READABLE)?;
        register(&poll, signals.as_raw_fd(), SIGNALS, Interest::READABLE)?;
        let hostname = host_name(&config, &poll)?;
        let wake = wake(&poll)?;
        let unified = reader.mode() == Mode::V2;
        let hierarchy = Hierarchy { root: reader.cgroup_id_root(), unified };
        let mut captures = Captures::load(&config.paths, hierarchy, config.containers, wake.clone());
        reader.read_by(cgroup_source(&mut captures, &config.paths.proc));
        let resolver = NameResolver::new(&config.names, config.containers, wake, captures.spawner());
        let slots = slots(&config, &mut captures, &poll, started.mono)?;
        confine(&captures);
        captures.begin_threads();
        let (log, recovered) = Writer::open(&config.log)?;
        let places = slots.places().len();
        let shared =
            SharedState::new(captures, log, hostname, config.region.clone(), config.capture_percent, places);
        let outputs = Outputs::new(OUTPUTS, &config, &shared.log);
        let mut agent = Agent {
            poll,
            signals,
            reader,
            resolver,
            shared,
            outputs,
            slots,
            http,
            control,
            process: Process::new(started.wall),
            started,
            turns: metrics::turns(),
            rescan: started.mono.saturating_add(RESCAN),
            mishaps: Mishaps::default(),
            requests: Vec::with_capacity(16),
            backlog: false,
            scanning: false,
            task_look: None,
            reloaded: None,
            looking: None,
            renamed: None,
            rename_from: 0,
            faults: AgentFaults::default(),
            config,
            config_file,
            registry,
        };
        agent.follow();
        agent.outputs.configure(&agent.config);
        agent.say_ready(&recovered);
        Ok(agent)
    }

    fn say_ready(&self, recovered: &log::RecoveryReport) {
        if recovered.torn_bytes > 0 || recovered.bad_records > 0 {
            eprintln!(
                "onset: the log was not closed well: {} bytes of an unfinished record left out, {} bad records; see onset verify",
                recovered.torn_bytes, recovered.bad_records
            );
        }
        for slot in self.slots.named() {
            if let State::Unsupported(reason) = &slot.state {
                eprintln!("onset: {} off: {reason}", slot.spec.name);
            }
        }
        let active: Vec<_> = self
            .slots
            .named()
            .filter(|slot| slot.state == State::Active)
            .map(|slot| slot.spec.name)
            .collect();
        eprintln!(
            "onset {} ready: {}; {} containers; http://{}/metrics; log {}",
            env!("CARGO_PKG_VERSION"),
            if active.is_empty() { "no tracer".to_owned() } else { active.join(", ") },
            self.reader.containers().iter().count(),
            self.http.address(),
            self.config.log.dir.display(),
        );
    }
}

/// What reads containers' counters in place of their text files, or why nothing does.
pub(crate) fn cgroup_source(
    captures: &mut Captures,
    proc: &Path,
) -> Result<Box<dyn CgroupSource>, &'static str> {
    captures.cgroup_source(proc).map(|source| Box::new(source) as Box<dyn CgroupSource>)
}

/// Gives away what is not needed any more. Where tasks are walked over, their stacks are in /proc.
fn confine(captures: &Captures) {
    let walks = captures.support(CaptureKind::Tasks).is_ok_and(|method| method.degraded.is_some());
    let confined = confine::apply(if walks { confine::SYS_ADMIN } else { 0 }, || captures.may_sample());
    if let Some(complaint) = confined.complaint() {
        eprintln!("onset: {complaint}");
    }
}

fn register(poll: &Poll, fd: std::os::fd::RawFd, token: Token, interest: Interest) -> Result<(), Error> {
    poll.registry().register(&mut SourceFd(&fd), token, interest).map_err(kernel("an entry in the epoll"))
}

/// The endpoint and the socket.
fn listen(config: &Config, poll: &Poll) -> Result<(http::Server, control::Server), Error> {
    let registry = poll.registry();
    let http = http::Server::bind(config.listen, registry, HTTP..HTTP + 1 + HTTP_MAX, PAGE_MAX)?;
    let control = control::Server::bind(
        &config.socket,
        config.socket_group.as_deref(),
        registry,
        CONTROL..CONTROL + 1 + CONTROL_MAX,
    )?;
    Ok((http, control))
}

fn host_name(config: &Config, poll: &Poll) -> Result<HostName, Error> {
    let hostname = HostName::new(&config.hostname, &config.paths.proc);
    if let Some(fd) = hostname.fd() {
        register(poll, fd, HOST_NAME, Interest::PRIORITY)?;
    }
    Ok(hostname)
}

/// What wakes the loop from another thread.
fn wake(poll: &Poll) -> Result<Arc<dyn Fn() + Send + Sync>, Error> {
    let waker = Waker::new(poll.registry(), WAKE).map_err(kernel("an eventfd"))?;
    Ok(Arc::new(move || {
        // An eventfd that is full wakes as well.
        let _ = waker.wake();
    }))
}

fn slots(
    config: &Config,
    captures: &mut Captures,
    poll: &Poll,
    now: std::time::Duration,
) -> Result<TracerSlots, Error> {
    let mut slots = TracerSlots::default();
    for (place, tracer) in config.tracers.iter().enumerate() {
        slots.put(place, open_slot(config, captures, poll, place, tracer, now, attach_hook)?);
    }
    Ok(slots)
}

/// Makes a tracer for this place, and has the poll tell of what it is fed by; `bring_hook` brings its hook, or
/// orders it. May take memory.
pub(super) fn open_slot(
    config: &Config,
    captures: &mut Captures,
    poll: &Poll,
    place: usize,
    tracer: &ConfiguredTracer,
    now: std::time::Duration,
    bring_hook: fn(&Poll, &mut Captures, usize, &mut Slot),
) -> Result<Slot, Error> {
    let capacity = Capacity { containers: Containers::slots_for(config.containers) };
    let state = support::state(tracer.spec, &tracer.settings, captures);
    let mut slot = Slot::new(tracer, state, capacity).map_err(kernel("a timerfd"))?;
    register(poll, slot.timer.as_raw_fd(), Token(TIMERS + place), Interest::READABLE)?;
    bring_hook(poll, captures, place, &mut slot);
    // The first look is at once: a rate needs two.
    slot.due = slot.state.ticks();
    slot.arm(now).map_err(kernel("a timer go"))?;
    watch_pressure(poll, &config.paths.proc, place, &mut slot);
    Ok(slot)
}

/// Arms the pressure that a tracer wants to be woken by; without it, it looks at its interval.
pub(super) fn watch_pressure(poll: &Poll, proc: &Path, index: usize, slot: &mut Slot) {
    let Some(wanted) = slot.spec.pressure.filter(|_| slot.state.ticks() && slot.pressure.is_none()) else {
        return;
    };
    let armed = PsiTrigger::arm(proc, &wanted).and_then(|trigger| {
        poll.registry().register(
            &mut SourceFd(&trigger.fd()),
            Token(PRESSURES + index),
            Interest::PRIORITY,
        )?;
        Ok(trigger)
    });
    match armed {
        Ok(trigger) => slot.pressure = Some(trigger),
        Err(error) => eprintln!(
            "onset: {} looks at its interval only: no PSI trigger on {} ({error}); see onset doctor",
            slot.spec.name, wanted.resource
        ),
    }
}

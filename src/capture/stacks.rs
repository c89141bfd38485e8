//! Captures of sampled stacks, by a clock or by page faults: one armed program serves all that run
//! at a time. Each has a scope and a deadline of its own; at each of them the kernel's counts are
//! read, so every request gets the samples of its own time only.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::OPEN_MAX;
use super::answer::Answer;
use super::resident::{self, Members};
use crate::bpf;
use crate::evidence::{Capture, Faults, Kind, Refusal, Resident, Scope, Seen};
use crate::host::Key;
use crate::inbox::{Found, Inbox, Shift};
use crate::stacks::fold;
use crate::starter::{Crew, Starter};
use crate::symbol::{EXITED, Stack, Symbolizer};

/// The counts are read this often: soon enough that a process is looked at while it is there.
const TURN: Duration = Duration::from_millis(100);

/// New stacks taken out of the ring at once.
const BATCH: u32 = 256;

/// Portions taken in one turn: more than any ring holds.
const BATCHES_MAX: u32 = 512;

/// Different stacks that are kept; 800 bytes each, for a few seconds. What is beyond counts as lost.
const STACKS_MAX: usize = 65_536;

/// One request.
pub(super) struct Job {
    pub(super) answer: Answer,
    pub(super) scope: Scope,
    pub(super) lasting: Duration,
    /// Whose memory is asked for, where memory is.
    pub(super) members: Members,
}

/// What a program samples, which says what its counts are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sampled {
    /// What runs: in samples.
    Running,
    /// Page faults: in bytes, so many a sample.
    Faults {
        /// Of one page.
        page_bytes: u32,
    },
}

/// A request that is over: only its names are missing.
pub(super) struct Ended {
    running: Running,
    lasted: Duration,
    lost: u64,
}

/// A stack of a process: what it is counted under.
type Which = (u32, u64);

struct Running {
    job: Job,
    began: Instant,
    until: Instant,
    /// The kernel's count of lost samples when it began.
    lost_before: u64,
    /// The weight of stacks whose frames are not known.
    nameless: u64,
    counts: HashMap<Which, (Arc<bpf::Sent>, u64)>,
    symbols: Symbolizer,
    /// Who held most memory when it began, where memory was asked for.
    resident: Vec<Resident>,
}

/// The part of a capture thread that outlives a run.
pub(super) struct Sampler {
    pub(super) program: Mutex<bpf::Stacks>,
    pub(super) inbox: Inbox<Job>,
    pub(super) endings: Inbox<Ended>,
    pub(super) proc: Box<Path>,
    pub(super) sampled: Sampled,
    /// Samples that the program could not keep, read from any thread.
    pub(super) lost: bpf::Lost,
}

impl Sampler {
    /// Of a loaded program.
    pub(super) fn new(program: bpf::Stacks, sampled: Sampled, proc: &Path) -> Result<Sampler, bpf::Error> {
        let lost = program.lost()?;
        let (inbox, endings) = (Inbox::new(OPEN_MAX), Inbox::new(OPEN_MAX));
        Ok(Sampler { program: Mutex::new(program), inbox, endings, proc: proc.into(), sampled, lost })
    }

    /// Takes a request.
    pub(super) fn bring(self: &Arc<Self>, starter: &Starter, job: Job) {
        starter.bring(&self.inbox, job, || Arc::clone(self) as _);
    }

    /// Tells its threads to leave, and waits for them, but not for ever.
    pub(super) fn close(&self, deadline: Instant) {
        self.inbox.close(deadline);
        self.endings.close(deadline);
    }
}

impl Crew for Sampler {
    fn name(&self) -> &'static str {
        match self.sampled {
            Sampled::Running => "onset-stacks",
            Sampled::Faults { .. } => "onset-faults",
        }
    }

    fn work(self: Arc<Self>) {
        sample(&self);
    }

    fn give_up(&self) {
        drop(self.inbox.shift());
    }
}

impl Sampled {
    /// Which capture it is.
    pub(super) const fn kind(self) -> Kind {
        match self {
            Sampled::Running => Kind::Stacks,
            Sampled::Faults { .. } => Kind::Faults,
        }
    }

    /// Of this weight, how many samples there were; at least one.
    fn samples(self, weight: u64) -> u64 {
        match self {
            Sampled::Running => weight,
            Sampled::Faults { page_bytes } => {
                let each = u64::from(page_bytes) * u64::from(bpf::FAULTS_EACH);
                weight.div_ceil(each.max(1))
            }
        }
    }

    /// Who holds most of the memory that is asked about.
    fn resident(self, proc: &Path, members: &Members) -> Vec<Resident> {
        match self {
            Sampled::Running => Vec::new(),
            Sampled::Faults { page_bytes } => resident::top(proc, members, page_bytes.into()),
        }
    }
}

/// The life of the sampling thread: from the first request until none is left.
fn sample(sampler: &Arc<Sampler>) {
    let mut shift = sampler.inbox.shift();
    let mut program = sampler.program.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        match program.arm() {
            Ok(armed) => {
                let known = HashMap::new();
                Session { armed, running: Vec::new(), known, sampler }.run(&shift);
            }
            Err(error) => {
                bpf::Failed::Attach.count("the sampling program", &error);
                refuse_waiting(&shift);
            }
        }
        if shift.leave() {
            return;
        }
    }
}

fn refuse_waiting(shift: &Shift<'_, Job>) {
    while let Found::Job(job) = shift.next(Duration::ZERO) {
        job.answer.give(Err(Refusal::Failed(
            "sampling could not begin: out of descriptors or rights; see onset doctor",
        )));
    }
}

/// One run of the armed program.
struct Session<'s> {
    armed: bpf::Armed<'s>,
    running: Vec<Running>,
    known: HashMap<Which, Arc<bpf::Sent>>,
    sampler: &'s Arc<Sampler>,
}

impl Session<'_> {
    fn run(mut self, shift: &Shift<'_, Job>) {
        loop {
            let next = self.running.iter().map(|running| running.until).min();
            let wait = match next {
                // The first request is there already: the thread was started for it.
                None => Duration::ZERO,
                Some(until) => until.saturating_duration_since(Instant::now()).min(TURN),
            };
            match shift.next(wait) {
                Found::Job(job) => self.begin(job),
                Found::Nothing if self.running.is_empty() => return,
                Found::Nothing => {
                    self.turn();
                }
                Found::Closed => return,
            }
        }
    }

    /// Takes a request in; what was counted before is not its own.
    fn begin(&mut self, job: Job) {
        let aimed = self.aim(Some(job.scope));
        let began = self.turn();
        if let Err(error) = aimed {
            bpf::Failed::Write.count("the scope of samples", &error);
            return job
                .answer
                .give(Err(Refusal::Failed("the stacks program could not be aimed at its scope")));
        }
        // After sampling began: what is read of many processes takes a while.
        let resident = self.sampler.sampled.resident(&self.sampler.proc, &job.members);
        self.running.push(Running {
            began,
            resident,
            // No clock reaches the end of a time that overflows it; a day is longer than any capture.
            until: began.checked_add(job.lasting).unwrap_or(began + Duration::from_secs(86_400)),
            lost_before: self.armed.lost(),
            nameless: 0,
            counts: HashMap::new(),
            symbols: Symbolizer::new(&self.sampler.proc),
            job,
        });
    }

    fn aim(&mut self, new: Option<Scope>) -> Result<(), bpf::Error> {
        let scopes = || self.running.iter().map(|running| running.job.scope).chain(new);
        let host = scopes().any(|scope| !matches!(scope, Scope::Container(_)));
        let key = |scope| match scope {
            Scope::Host | Scope::Device(_) => None,
            Scope::Container(key) => Some(key),
        };
        let targets: Vec<Key> = scopes().filter_map(key).collect();
        self.armed.aim(host, targets)
    }

    /// Reads what was counted since the last turn, and ends what is due. The time of this turn.
    fn turn(&mut self) -> Instant {
        let turned = self.armed.turn();
        let now = Instant::now();
        // Frames are sent before their stack is counted, so these are here first.
        let known = &mut self.known;
        for _ in 0..BATCHES_MAX {
            let left = self.armed.stacks(BATCH, |sent| {
                if known.len() < STACKS_MAX {
                    known.entry((sent.pid, sent.hash)).or_insert_with(|| Arc::new(sent));
                }
            });
            if left == bpf::Drained::Empty {
                break;
            }
        }
        let running = &mut self.running;
        let counted = self.armed.counts(|count| {
            let which = (count.pid, count.hash);
            for running in running.iter_mut().filter(|running| running.wants(count.container)) {
                running.count(which, known.get(&which), count.weight);
            }
        });
        let read =
            turned.and(counted).inspect_err(|error| bpf::Failed::Read.count("counts of stacks", error));
        let broken = read.is_err();
        let due: Vec<Running> =
            self.running.extract_if(.., |running| broken || running.until <= now).collect();
        if due.is_empty() {
            return now;
        }
        let lost = self.armed.lost();
        for running in due {
            if broken {
                let refusal = Refusal::Failed("the kernel's counts could not be read");
                running.job.answer.give(Err(refusal));
            } else {
                self.end(running, now, lost);
            }
        }
        // Should this fail, more is sampled than is asked for, and no capture has it.
        if let Err(error) = self.aim(None) {
            bpf::Failed::Write.count("the scope of samples", &error);
        }
        now
    }

    /// Hands a request over to the thread that finds names: that may take a while.
    fn end(&mut self, running: Running, now: Instant, lost: u64) {
        let lasted = now.saturating_duration_since(running.began);
        let nameless = self.sampler.sampled.samples(running.nameless);
        let lost = lost.saturating_sub(running.lost_before).saturating_add(nameless);
        let sampler = Arc::clone(self.sampler);
        let life = move || find_names(&sampler);
        self.sampler.endings.bring_to("onset-names", Ended { running, lasted, lost }, life);
    }
}

impl Running {
    fn wants(&self, container: Option<Key>) -> bool {
        match self.job.scope {
            Scope::Host | Scope::Device(_) => true,
            Scope::Container(key) => container == Some(key),
        }
    }

    fn count(&mut self, which: Which, sent: Option<&Arc<bpf::Sent>>, weight: u64) {
        let Some(sent) = sent else {
            self.nameless = self.nameless.saturating_add(weight);
            return;
        };
        let counted = self.counts.entry(which).or_insert_with(|| {
            // It was on a CPU a moment ago, so looking at it does not hang.
            self.symbols.sight(sent.pid, &sent.user);
            (Arc::clone(sent), 0)
        });
        counted.1 = counted.1.saturating_add(weight);
    }
}

/// The life of the naming thread.
fn find_names(sampler: &Sampler) {
    let mut shift = sampler.endings.shift();
    loop {
        match shift.next(Duration::ZERO) {
            Found::Job(ended) => ended.name(sampler.sampled),
            Found::Nothing if shift.leave() => return,
            Found::Nothing => {}
            Found::Closed => return,
        }
    }
}

impl Ended {
    fn name(self, sampled: Sampled) {
        let Ended { running: Running { job, counts, symbols, resident, .. }, lasted, lost } = self;
        let (sent, stacks): (Vec<_>, Vec<_>) = counts
            .into_values()
            .map(|(sent, weight)| {
                let (user, kernel) = (sent.user.to_vec(), sent.kernel.to_vec());
                let stack = Stack { pid: sent.pid, weight, user, kernel };
                (sent, stack)
            })
            .unzip();
        let names = symbols.resolve(&stacks);
        let rows = stacks.iter().zip(&sent).map(|(stack, sent)| {
            let mut row = names.row(stack);
            // It was too short-lived to be looked at, but the kernel told its name with the stack.
            if row.comm == EXITED {
                row.comm = &sent.comm;
            }
            row
        });
        let profile = fold(bpf::HZ, rows);
        let seen = match sampled {
            Sampled::Running => Seen::Stacks(profile),
            Sampled::Faults { .. } => Seen::Faults(Faults { flame: profile.flame, top: resident }),
        };
        job.answer.give(Ok(Capture { scope: job.scope, lasted, lost, seen }));
    }
}

//! Captures of sampled stacks, by a clock or by page faults: one armed program serves all that run
//! at a time. Each has a scope and a deadline of its own. At the next of them the kernel ends its
//! counts by itself, so every request gets the samples of its own time only, however late this is.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::OPEN_MAX;
use super::answer::Answer;
use super::naming::{Counted, Ended, find_names};
use super::resident::{self, Members};
use crate::bpf;
use crate::evidence::{Kind, Refusal, Resident, Scope};
use crate::host::Key;
use crate::inbox::{Found, Inbox, Shift};
use crate::starter::{Crew, Starter};
use crate::symbol::Symbolizer;
use crate::sys;

/// The counts are read this often: soon enough that a process is looked at while it is there.
const TURN: Duration = Duration::from_millis(100);

/// New stacks taken out of the ring at once.
const BATCH: u32 = 256;

/// Portions taken in one turn: more than any ring holds.
const BATCHES_MAX: u32 = 512;

/// Different stacks that are kept; 800 bytes each, for a few seconds. What is beyond counts as lost.
const STACKS_MAX: usize = 65_536;

/// Longer than any capture.
const LONG: Duration = Duration::from_secs(86_400);

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

/// A stack of a process: what it is counted under.
type Which = (u32, u64);

/// What was counted of a stack, whose frames may come later.
#[derive(Default)]
struct Sum {
    weight: u64,
    last: Duration,
    sight: Sight,
}

/// Whether a stack's process was looked at for it.
#[derive(Clone, Copy, Default)]
enum Sight {
    #[default]
    New,
    /// It is to be shown again; it came first at this time.
    Again(Instant),
    Done,
}

/// Times are the monotonic clock's.
struct Running {
    job: Job,
    began: Duration,
    until: Duration,
    /// Samples that found no room in the kernel.
    lost: u64,
    /// The weight of stacks that found no room here.
    beyond: u64,
    counts: HashMap<Which, Sum>,
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
                Some(until) => until.saturating_sub(sys::monotonic()).min(TURN),
            };
            match shift.next(wait) {
                Found::Job(job) => self.begin(job),
                Found::Nothing if self.running.is_empty() => return,
                Found::Nothing => {
                    self.turn(sys::monotonic(), None);
                    // It is tried again at the next turn.
                    if let Err(error) = self.armed.attach_online() {
                        bpf::Failed::Attach.count("the samples of a CPU that came online", &error);
                    }
                }
                Found::Closed => return,
            }
        }
    }

    /// Takes a request in; what was counted before is not its own.
    fn begin(&mut self, job: Job) {
        let now = sys::monotonic();
        if self.armed.ends_at(now) < now {
            self.turn(now, None);
        }
        let aimed = self.aim(Some(job.scope));
        let lasting = job.lasting.min(LONG);
        let read = self.turn(now, Some((job.scope, lasting)));
        if let Err(error) = &aimed {
            bpf::Failed::Write.count("the scope of samples", error);
        }
        let (Ok(()), Some(_)) = (aimed, read) else {
            return job
                .answer
                .give(Err(Refusal::Failed("the stacks program could not be aimed at its scope")));
        };
        // After sampling began: what is read of many processes takes a while.
        let resident = self.sampler.sampled.resident(&self.sampler.proc, &job.members);
        self.running.push(Running {
            began: now,
            resident,
            // What the kernel was told is due: with a later clock no turn would ever end at it.
            until: now.saturating_add(lasting),
            lost: 0,
            beyond: 0,
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

    /// Reads what was counted until `now`, or until a request's end if that was earlier, and ends what is
    /// due. `new` is what a request that begins at `now` is of, and lasts. When the time that was read ended; `None`:
    /// it could not be read.
    fn turn(&mut self, now: Duration, new: Option<(Scope, Duration)>) -> Option<Duration> {
        let ended = self.armed.ends_at(now);
        let untils = self.running.iter().map(|running| running.until).filter(|until| *until > ended);
        let untils = untils.chain(new.map(|(_, lasting)| now.saturating_add(lasting)));
        let (next, end) = untils.fold((None, Duration::ZERO), |(next, end), until| {
            (Some(next.map_or(until, |next: Duration| next.min(until))), end.max(until))
        });
        // One that should have ended by now is read, and ends, at the next turn.
        let turned = self.armed.turn(now, next.filter(|next| *next > now), end);
        self.take_frames();
        let read = turned
            .and_then(|ended| self.count().map(|()| ended))
            .inspect_err(|error| bpf::Failed::Read.count("counts of stacks", error))
            .ok();
        let due = |running: &mut Running| read.is_none_or(|ended| running.until <= ended);
        let due: Vec<Running> = self.running.extract_if(.., due).collect();
        if !due.is_empty() {
            for running in due {
                self.end(running, read);
            }
            // Should this fail, more is sampled than is asked for, and no capture has it.
            if let Err(error) = self.aim(new.map(|(scope, _)| scope)) {
                bpf::Failed::Write.count("the scope of samples", &error);
            }
        }
        read
    }

    /// Takes the frames of new stacks out of the ring: they are sent before their stack is counted.
    fn take_frames(&mut self) {
        let known = &mut self.known;
        for _ in 0..BATCHES_MAX {
            let left = self.armed.stacks(BATCH, |sent| {
                if known.len() < STACKS_MAX {
                    known.entry((sent.image.pid, sent.hash)).or_insert_with(|| Arc::new(sent));
                }
            });
            if left == bpf::Drained::Empty {
                return;
            }
        }
    }

    fn count(&mut self) -> Result<(), bpf::Error> {
        let (running, known) = (&mut self.running, &self.known);
        let lost = self.armed.counts(|count| {
            let sent = known.get(&(count.pid, count.hash));
            for running in running.iter_mut().filter(|running| running.wants(count.container)) {
                running.count(&count, sent);
            }
        })?;
        for running in &mut self.running {
            running.lost = running.lost.saturating_add(lost);
        }
        Ok(())
    }

    /// Hands a request over to the thread that finds names: that may take a while.
    fn end(&mut self, running: Running, ended: Option<Duration>) {
        let Running { job, began, lost, beyond, counts, symbols, resident, .. } = running;
        let Some(ended) = ended else {
            let refusal = Refusal::Failed("the kernel's counts could not be read");
            return job.answer.give(Err(refusal));
        };
        let (mut stacks, mut nameless) = (Vec::new(), beyond);
        for (which, Sum { weight, last, .. }) in counts {
            match self.known.get(&which) {
                Some(sent) => stacks.push(Counted { sent: Arc::clone(sent), weight, last }),
                None => nameless = nameless.saturating_add(weight),
            }
        }
        let lost = lost.saturating_add(self.sampler.sampled.samples(nameless));
        let lasted = ended.saturating_sub(began);
        let sampler = Arc::clone(self.sampler);
        let life = move || find_names(&sampler);
        let ended = Ended { job, lasted, lost, stacks, symbols, resident };
        self.sampler.endings.bring_to("onset-names", ended, life);
    }
}

impl Running {
    fn wants(&self, container: Option<Key>) -> bool {
        match self.job.scope {
            Scope::Host | Scope::Device(_) => true,
            Scope::Container(key) => container == Some(key),
        }
    }

    fn count(&mut self, count: &bpf::Count, sent: Option<&Arc<bpf::Sent>>) {
        let which = (count.pid, count.hash);
        if sent.is_none() && self.counts.len() >= STACKS_MAX && !self.counts.contains_key(&which) {
            self.beyond = self.beyond.saturating_add(count.weight);
            return;
        }
        let sum = self.counts.entry(which).or_default();
        sum.weight = sum.weight.saturating_add(count.weight);
        sum.last = sum.last.max(count.last);
        let first = match sum.sight {
            Sight::New => Instant::now(),
            Sight::Again(first) => first,
            Sight::Done => return,
        };
        let Some(sent) = sent else { return };
        // It was on a CPU a moment ago, so looking at it does not hang.
        let content = self.symbols.sight(sent.image, sent.layout, &sent.user, first);
        sum.sight = if content { Sight::Done } else { Sight::Again(first) };
    }
}

#[cfg(test)]
mod tests;

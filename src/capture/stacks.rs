//! Captures of sampled stacks, by a clock or by page faults: one armed program serves all that run
//! at a time. Each has a scope and a deadline of its own. At the next of them the kernel ends its
//! counts by itself, so every request gets the samples of its own time only, however late this is.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::backend::{Backend, Loaded, Loader, Method, OPEN_MAX, Submission};
use super::load::{page_bytes, sentence};
use super::naming::{Counted, Ended, Namer};
use super::open_request::OpenRequest;
use super::resident::{Holder, Members};
use super::sampled::Sampled;
use super::session::{Programs, Session};
use crate::bpf;
use crate::capture_data::{Refusal, Scope};
use crate::host::Key;
use crate::symbol::Symbolizer;
use crate::sys;
use crate::thread_spawner::{Worker, push_from_thread};
use crate::work_queue::{WorkQueue, WorkerGuard};

/// The counts are read this often: soon enough that a process is looked at while it is there.
const TURN: Duration = Duration::from_millis(100);

/// New stacks taken out of the ring at once.
const BATCH: u32 = 256;

/// Portions taken in one turn: more than any ring holds.
const BATCHES_MAX: u32 = 512;

/// Different stacks that are kept for a few seconds, and the bytes of their frames: a usual one has 800. What is
/// beyond counts as lost.
const STACKS_MAX: usize = 65_536;
const FRAMES_MAX: usize = 16 << 20;

/// Longer than any capture.
const LONG: Duration = Duration::from_secs(86_400);

const PROGRAM: Programs = Programs {
    name: "the sampling program",
    refusal: Refusal::Failed("sampling could not begin: out of descriptors or rights; see onset doctor"),
};

/// One request.
pub(super) struct Job {
    open: OpenRequest,
    /// Whose memory is asked for, where memory is.
    members: Members,
}

impl From<Job> for OpenRequest {
    fn from(job: Job) -> OpenRequest {
        job.open
    }
}

/// A stack of a process: what it is counted under.
type StackKey = (u32, u64);

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
    open: OpenRequest,
    began: Duration,
    until: Duration,
    /// Samples that found no room in the kernel.
    lost: u64,
    /// The weight of stacks that found no room here.
    beyond: u64,
    counts: HashMap<StackKey, Sum>,
    symbols: Symbolizer,
    /// Who held most memory when it began, where memory was asked for.
    resident: Vec<Holder>,
}

/// The part of a capture thread that outlives a run.
pub(super) struct Sampler {
    program: Mutex<bpf::Stacks>,
    queue: WorkQueue<Job>,
    namer: Arc<Namer>,
    proc: Box<Path>,
    unified: bool,
    sampled: Sampled,
    /// Samples that the program could not keep, read from any thread.
    lost: bpf::Lost,
}

/// Loads what samples running code.
pub(super) fn by_clock(loader: &mut Loader<'_>) -> Loaded {
    let site = loader.site()?;
    let program = bpf::Stacks::by_clock(&site, loader.meter).map_err(sentence)?;
    Ok(Arc::new(Sampler::new(program, Sampled::Running, &loader.paths.proc, site.unified)?))
}

/// Loads what samples page faults.
pub(super) fn by_faults(loader: &mut Loader<'_>) -> Loaded {
    let (site, page_bytes) = (loader.site()?, page_bytes());
    let program = bpf::Stacks::by_faults(&site, page_bytes, loader.meter).map_err(sentence)?;
    Ok(Arc::new(Sampler::new(program, Sampled::Faults { page_bytes }, &loader.paths.proc, site.unified)?))
}

impl Sampler {
    fn new(
        program: bpf::Stacks,
        sampled: Sampled,
        proc: &Path,
        unified: bool,
    ) -> Result<Sampler, &'static str> {
        let lost = program.lost().map_err(sentence)?;
        let namer = Arc::new(Namer::new(sampled));
        let (program, queue) = (Mutex::new(program), WorkQueue::new(OPEN_MAX));
        Ok(Sampler { program, queue, namer, proc: proc.into(), unified, sampled, lost })
    }
}

impl Backend for Sampler {
    fn method(&self) -> Method {
        let name = match self.sampled {
            Sampled::Running => "perf_event",
            Sampled::Faults { .. } => "perf_event page-faults",
        };
        Method { name, degraded: None }
    }

    fn one_per_scope(&self) -> bool {
        true
    }

    fn submit(self: Arc<Self>, open: OpenRequest, from: &Submission<'_>) {
        let members = match self.sampled {
            Sampled::Running => Members::HOST,
            Sampled::Faults { .. } => Members::of_scope(open.scope(), from.containers, self.unified),
        };
        from.spawner.push(&self, Job { open, members });
    }

    fn lost(&self, each: &mut dyn FnMut(&'static str, u64)) {
        each(self.sampled.kind().name(), self.lost.samples());
    }

    fn try_attach(&self) {
        let _ = self.program.lock().unwrap_or_else(PoisonError::into_inner).arm();
    }

    fn close(&self, deadline: Instant) {
        self.queue.close(deadline);
        self.namer.queue().close(deadline);
    }
}

impl Worker for Sampler {
    type Job = Job;

    fn name(&self) -> &'static str {
        match self.sampled {
            Sampled::Running => "onset-stacks",
            Sampled::Faults { .. } => "onset-faults",
        }
    }

    fn queue(&self) -> &WorkQueue<Job> {
        &self.queue
    }

    fn work(&self, jobs: &mut WorkerGuard<'_, Job>) {
        let mut program = self.program.lock().unwrap_or_else(PoisonError::into_inner);
        PROGRAM.serve(jobs, |jobs| {
            let armed = program.arm()?;
            StacksSession { armed, running: Vec::new(), known: Known::default(), sampler: self }.run(jobs);
            Ok(())
        });
    }
}

/// The stacks whose frames have come.
#[derive(Default)]
struct Known {
    stacks: HashMap<StackKey, Arc<bpf::StackRecord>>,
    /// Of their frames.
    bytes: usize,
}

impl Known {
    /// Keeps a stack, if there is room.
    fn keep(&mut self, sent: bpf::StackRecord) {
        let bytes = size_of_val(&*sent.user) + size_of_val(&*sent.kernel);
        let full = self.stacks.len() >= STACKS_MAX || self.bytes + bytes > FRAMES_MAX;
        let key = (sent.image.pid, sent.hash);
        if !full && !self.stacks.contains_key(&key) {
            self.bytes += bytes;
            self.stacks.insert(key, Arc::new(sent));
        }
    }
}

/// One run of the armed program.
struct StacksSession<'s> {
    armed: bpf::Armed<'s>,
    running: Vec<Running>,
    known: Known,
    sampler: &'s Sampler,
}

impl Session for StacksSession<'_> {
    type Job = Job;

    fn begin(&mut self, job: Job, _: &WorkerGuard<'_, Job>) {
        self.accept(job);
    }

    fn due(&self) -> Option<Duration> {
        let next = self.running.iter().map(|running| running.until).min();
        next.map(|until| until.saturating_sub(sys::monotonic()).min(TURN))
    }

    fn turn(&mut self) -> ControlFlow<()> {
        self.turn_at(sys::monotonic(), None);
        // It is tried again at the next turn.
        if let Err(error) = self.armed.attach_online() {
            bpf::Failed::Attach.count("the samples of a CPU that came online", &error);
        }
        ControlFlow::Continue(())
    }
}

impl StacksSession<'_> {
    /// Takes a request in; what was counted before is not its own.
    fn accept(&mut self, job: Job) {
        let now = sys::monotonic();
        if self.armed.ends_at(now) < now {
            self.turn_at(now, None);
        }
        let scope = job.open.scope();
        let aimed = self.aim(Some(scope));
        let lasting = job.open.lasting().min(LONG);
        let read = self.turn_at(now, Some((scope, lasting)));
        if let Err(error) = &aimed {
            bpf::Failed::Write.count("the scope of samples", error);
        }
        let (Ok(()), Some(_)) = (aimed, read) else {
            let why = Refusal::Failed("the stacks program could not be aimed at its scope");
            return job.open.refuse(why);
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
            open: job.open,
        });
    }

    fn aim(&mut self, new: Option<Scope>) -> Result<(), bpf::Error> {
        let scopes = || self.running.iter().map(|running| running.open.scope()).chain(new);
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
    fn turn_at(&mut self, now: Duration, new: Option<(Scope, Duration)>) -> Option<Duration> {
        let ended = self.armed.ends_at(now);
        let untils = self.running.iter().map(|running| running.until).filter(|until| *until > ended);
        let untils = untils.chain(new.map(|(_, lasting)| now.saturating_add(lasting)));
        let (next, end) = untils.fold((None, Duration::ZERO), |(next, end), until| {
            (Some(next.map_or(until, |next: Duration| next.min(until))), end.max(until))
        });
        // A request that should have ended by now is read, and ends, at the next turn.
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
                known.keep(sent);
            });
            if left == bpf::Drained::Empty {
                return;
            }
        }
    }

    fn count(&mut self) -> Result<(), bpf::Error> {
        let (running, known) = (&mut self.running, &self.known);
        let lost = self.armed.counts(|count| {
            let sent = known.stacks.get(&(count.pid, count.hash));
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
        let Running { open, began, lost, beyond, counts, symbols, resident, .. } = running;
        let Some(ended) = ended else {
            return open.refuse(Refusal::Failed("the kernel's counts could not be read"));
        };
        let (mut stacks, mut nameless) = (Vec::new(), beyond);
        for (key, Sum { weight, last, .. }) in counts {
            match self.known.stacks.get(&key) {
                Some(sent) => stacks.push(Counted { sent: Arc::clone(sent), weight, last }),
                None => nameless = nameless.saturating_add(weight),
            }
        }
        let lost = lost.saturating_add(self.sampler.sampled.samples(nameless));
        let lasted = ended.saturating_sub(began);
        let began = sys::at_monotonic(began);
        let ended = Ended { open, began, lasted, lost, stacks, symbols, resident };
        push_from_thread(&self.sampler.namer, ended);
    }
}

impl Running {
    fn wants(&self, container: Option<Key>) -> bool {
        match self.open.scope() {
            Scope::Host | Scope::Device(_) => true,
            Scope::Container(key) => container == Some(key),
        }
    }

    fn count(&mut self, count: &bpf::Count, sent: Option<&Arc<bpf::StackRecord>>) {
        let key = (count.pid, count.hash);
        if sent.is_none() && self.counts.len() >= STACKS_MAX && !self.counts.contains_key(&key) {
            self.beyond = self.beyond.saturating_add(count.weight);
            return;
        }
        let sum = self.counts.entry(key).or_default();
        sum.weight = sum.weight.saturating_add(count.weight);
        sum.last = sum.last.max(count.last);
        let first = match sum.sight {
            Sight::New => Instant::now(),
            Sight::Again(first) => first,
            Sight::Done => return,
        };
        let Some(sent) = sent else { return };
        // It was on a CPU a moment ago, so looking at it does not hang.
        let content = self.symbols.observe(sent.image, sent.layout, &sent.user, first);
        sum.sight = if content { Sight::Done } else { Sight::Again(first) };
    }
}

#[cfg(test)]
mod tests;

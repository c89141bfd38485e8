//! The log's helper thread: it does what may wait for the disk. It syncs what was appended, and
//! makes the next segment ahead, deleting old ones for it. The writer never waits for it for long.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use super::folder::{Folder, NEXT, remove};
use super::mark::Marks;
use super::segment::Segment;
use super::{Error, calls, retention};

/// What failed is tried again after this time.
const RETRY: Duration = Duration::from_secs(1);
/// Enough for this thread's buffers; it counts against no budget until it is used.
const STACK: usize = 256 << 10;

/// What the thread is to keep to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) segment: u64,
    pub(super) budget: u64,
    pub(super) sync: Duration,
}

/// Counts that the thread keeps.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) sync_failures: AtomicU64,
    pub(super) create_failures: AtomicU64,
}

/// The segment after the current one.
#[derive(Debug)]
enum Next {
    Unwanted,
    Wanted,
    Ready(Segment),
    /// It could not be made; it is tried again at that time.
    Failed(Arc<Error>, Instant),
}

/// The segment that is appended to.
#[derive(Clone, Debug)]
struct Current {
    first: u64,
    file: Arc<File>,
    /// The end of its last record.
    end: u64,
}

#[derive(Debug)]
struct State {
    next: Next,
    current: Current,
    /// Full segments that are not known to be on the disk.
    sealed: Vec<Segment>,
    appended: u64,
    synced: u64,
    /// The folder has names that are not known to be on the disk.
    renamed: bool,
    /// Syncs that failed, and how many of them are made good: until then, what they were for
    /// must be written again before another one says anything.
    doubts: u64,
    settled: u64,
    flush: bool,
    stop: bool,
    /// How the last sync went.
    outcome: Result<(), i32>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    work: Condvar,
    done: Condvar,
    tally: Tally,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The writer's end.
#[derive(Debug)]
pub(super) struct Syncer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Syncer {
    /// Starts the thread. It has the signal mask of whoever calls.
    pub(super) fn start(
        folder: Folder,
        plan: Plan,
        first: u64,
        current: &Segment,
        marks: Arc<Marks>,
    ) -> Result<Syncer, Error> {
        let state = State {
            next: Next::Unwanted,
            current: Current { first, file: current.file().clone(), end: current.end() },
            sealed: Vec::with_capacity(4), // one is made while one waits, so there are never more
            appended: 0,
            synced: 0,
            renamed: false,
            doubts: 0,
            settled: 0,
            flush: false,
            stop: false,
            outcome: Ok(()),
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            work: Condvar::new(),
            done: Condvar::new(),
            tally: Tally::default(),
        });
        let dir: Arc<Path> = folder.dir().into();
        let theirs = shared.clone();
        let body =
            move || Thread { shared: theirs, folder, plan, marks, sealed: Vec::with_capacity(4) }.run();
        let thread = Builder::new().name("log-sync".to_owned()).stack_size(STACK).spawn(body);
        let thread = thread.map_err(Error::io("start a thread to sync", &dir))?;
        Ok(Syncer { shared, thread: Some(thread) })
    }

    /// What the thread counted.
    pub(super) fn tally(&self) -> &Tally {
        &self.shared.tally
    }

    /// How many records are not known to be on the disk.
    pub(super) fn unsynced(&self) -> u64 {
        let state = self.shared.state();
        state.appended.saturating_sub(state.synced)
    }

    /// One more record is there, up to `end`; `ahead`: a next segment is wanted soon.
    pub(super) fn appended(&self, end: u64, synced: bool, ahead: bool) {
        let mut state = self.shared.state();
        let mut wake = false;
        if ahead && matches!(state.next, Next::Unwanted) {
            state.next = Next::Wanted;
            wake = true;
        }
        wake |= state.appended == state.synced && !synced;
        state.appended += 1;
        state.current.end = end;
        if synced && state.doubts == state.settled {
            state.synced = state.appended;
        }
        drop(state);
        if wake {
            self.shared.work.notify_one();
        }
    }

    /// The next segment. Waits for it until `until` if it is being made.
    pub(super) fn take_next(&self, until: Instant) -> Result<Option<Segment>, Error> {
        let mut state = self.shared.state();
        loop {
            match std::mem::replace(&mut state.next, Next::Unwanted) {
                Next::Ready(segment) => return Ok(Some(segment)),
                Next::Failed(error, retry) => {
                    state.next = Next::Failed(error.clone(), retry);
                    return Err(Error::NoSegment(error));
                }
                Next::Unwanted | Next::Wanted => state.next = Next::Wanted,
            }
            self.shared.work.notify_one();
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            state = self.shared.done.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Appends go to this segment now; the one before is to be synced and closed.
    pub(super) fn switched(&self, first: u64, current: &Segment, before: Segment) {
        let mut state = self.shared.state();
        state.current = Current { first, file: current.file().clone(), end: current.end() };
        state.renamed = true;
        state.sealed.push(before);
        drop(state);
        self.shared.work.notify_one();
    }

    /// A sync that the writer did itself has failed.
    pub(super) fn doubt(&self) {
        self.shared.state().doubts += 1;
    }

    /// Syncs everything, unless that takes longer than `patience`.
    pub(super) fn flush(&self, patience: Duration) -> Option<io::Result<()>> {
        let mut state = self.shared.state();
        state.flush = true;
        self.shared.work.notify_one();
        let flushed = self.shared.done.wait_timeout_while(state, patience, |state| state.flush);
        let (state, wait) = flushed.unwrap_or_else(PoisonError::into_inner);
        (!wait.timed_out()).then(|| state.outcome.map_err(io::Error::from_raw_os_error))
    }

    /// Ends the thread, after a flush that went through. Otherwise it is left to the stuck disk.
    pub(super) fn stop(&mut self, flushed: bool) {
        self.shared.state().stop = true;
        self.shared.work.notify_one();
        if let Some(thread) = self.thread.take().filter(|_| flushed) {
            let _ = thread.join(); // it has nothing to say
        }
    }
}

/// What is to be done now.
enum Task {
    Prepare { keep: u64 },
    Sync { current: Current, appended: u64, renamed: bool, doubts: u64, doubt: bool },
    Stop,
}

/// The thread's end.
struct Thread {
    shared: Arc<Shared>,
    folder: Folder,
    plan: Plan,
    marks: Arc<Marks>,
    sealed: Vec<Segment>,
}

impl Thread {
    fn run(mut self) {
        let mut sync_at = Instant::now();
        loop {
            match self.task(sync_at) {
                Task::Stop => break,
                Task::Prepare { keep } => self.prepare(keep),
                Task::Sync { current, appended, renamed, doubts, doubt } => {
                    let outcome = self.sync(&current, renamed, doubt);
                    let pause = if outcome.is_ok() { self.plan.sync } else { self.plan.sync.max(RETRY) };
                    sync_at = Instant::now() + pause;
                    self.synced(appended, renamed, doubts, outcome);
                }
            }
        }
        if self.folder.held() {
            let _ = remove(&self.folder.dir().join(NEXT)); // else the next start removes it
        }
    }

    /// Waits until there is something to do.
    fn task(&mut self, sync_at: Instant) -> Task {
        let shared = self.shared.clone();
        let mut state = shared.state();
        loop {
            let now = Instant::now();
            let retry_at = match state.next {
                Next::Wanted => Some(now),
                Next::Failed(_, at) => Some(at),
                Next::Unwanted | Next::Ready(_) => None,
            };
            if retry_at.is_some_and(|at| at <= now) && !state.stop {
                return Task::Prepare { keep: state.current.first };
            }
            let unsynced = state.appended > state.synced || !state.sealed.is_empty() || state.renamed;
            if state.flush || (unsynced && (sync_at <= now)) {
                self.sealed.append(&mut state.sealed);
                return Task::Sync {
                    current: state.current.clone(),
                    appended: state.appended,
                    renamed: std::mem::take(&mut state.renamed),
                    doubts: state.doubts,
                    doubt: state.doubts > state.settled,
                };
            }
            if state.stop {
                return Task::Stop;
            }
            let wake_at = [retry_at, unsynced.then_some(sync_at)].into_iter().flatten().min();
            state = match wake_at {
                Some(at) => {
                    let wait = shared.work.wait_timeout(state, at.saturating_duration_since(now));
                    wait.unwrap_or_else(PoisonError::into_inner).0
                }
                None => shared.work.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    fn prepare(&mut self, keep: u64) {
        let made = self.make(keep);
        let next = match made {
            Ok(segment) => Next::Ready(segment),
            Err(error) => {
                self.shared.tally.create_failures.fetch_add(1, Ordering::Relaxed);
                Next::Failed(Arc::new(error), Instant::now() + RETRY)
            }
        };
        self.shared.state().next = next;
        self.shared.done.notify_all();
    }

    fn make(&mut self, keep: u64) -> Result<Segment, Error> {
        self.folder.renew()?;
        next_room(&self.folder, &self.plan, Some(keep), &self.marks)?;
        make_next(&self.folder, &self.plan)
    }

    /// Every file is tried, and the last error told. A full segment stays until it is on the
    /// disk, or deleted.
    fn sync(&mut self, current: &Current, renamed: bool, doubt: bool) -> io::Result<()> {
        let sync = |file: &File, end: u64| {
            if doubt {
                calls::rewrite(file, end)?;
            }
            calls::sync_data(file)
        };
        let mut outcome = sync(&current.file, current.end);
        self.sealed.retain(|segment| match sync(segment.file(), segment.end()) {
            Err(error) if !segment.deleted() => {
                outcome = Err(error);
                true
            }
            _ => false,
        });
        if renamed { outcome.and_then(|()| self.folder.sync()) } else { outcome }
    }

    fn synced(&self, appended: u64, renamed: bool, doubts: u64, outcome: io::Result<()>) {
        if outcome.is_err() {
            self.shared.tally.sync_failures.fetch_add(1, Ordering::Relaxed);
        }
        let mut state = self.shared.state();
        state.outcome = match outcome {
            Ok(()) if state.doubts == doubts => {
                state.settled = doubts;
                state.synced = state.synced.max(appended);
                Ok(())
            }
            // The writer's own sync failed meanwhile, and the kernel tells of an error once.
            Ok(()) => Err(libc::EIO),
            Err(error) => {
                state.doubts += 1;
                Err(error.raw_os_error().unwrap_or(libc::EIO))
            }
        };
        state.renamed |= renamed && state.outcome.is_err();
        state.flush = false;
        drop(state);
        self.shared.done.notify_all();
    }
}

/// Makes room for one more segment.
pub(super) fn next_room(folder: &Folder, plan: &Plan, keep: Option<u64>, marks: &Marks) -> Result<(), Error> {
    remove(&folder.dir().join(NEXT))?;
    retention::reclaim(folder, plan.budget, plan.segment, keep, marks)
}

/// Makes the segment that will be the next one.
pub(super) fn make_next(folder: &Folder, plan: &Plan) -> Result<Segment, Error> {
    let path = folder.dir().join(NEXT);
    Segment::create(&path, plan.segment).map_err(Error::io("make", &path))
}

//! The log's helper thread, which may wait for the disk: it syncs what was appended, creates the next segment ahead
//! of its use, and deletes old segments for it. The writer never waits long for the thread.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use super::log_dir::{LogDir, NEXT, remove};
use super::progress::ProgressTable;
use super::segment::Segment;
use super::{Error, calls, retention};

/// What failed is tried again after this time.
const RETRY: Duration = Duration::from_secs(1);
/// Enough for this thread's buffers; it counts against no budget until it is used.
const STACK: usize = 256 << 10;

/// The configured sizes of the log, and how often it is synced.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogLimits {
    pub(super) segment: u64,
    pub(super) budget: u64,
    pub(super) sync: Duration,
}

/// Counts that the thread keeps.
#[derive(Debug, Default)]
pub(super) struct SyncerCounters {
    pub(super) sync_failures: AtomicU64,
    pub(super) create_failures: AtomicU64,
}

/// The segment after the current one.
#[derive(Debug)]
enum NextSegment {
    Unwanted,
    Wanted,
    Ready(Segment),
    /// It could not be created; the thread tries again at this time.
    Failed(Arc<Error>, Instant),
}

/// The segment that is appended to.
#[derive(Clone, Debug)]
struct CurrentSegment {
    first: u64,
    file: Arc<File>,
    /// The end of its last record.
    end: u64,
}

#[derive(Debug)]
struct SyncerState {
    next: NextSegment,
    current: CurrentSegment,
    /// Full segments that may not be on the disk yet.
    sealed: Vec<Segment>,
    appended: u64,
    synced: u64,
    /// The directory has names that may not be on the disk yet.
    renamed: bool,
    /// Syncs that failed, and how many of them are repaired. The kernel reports an error once, so until then the next
    /// sync writes the same pages again first.
    failed: u64,
    repaired: u64,
    flush: bool,
    stop: bool,
    /// The result of the last sync.
    outcome: Result<(), i32>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<SyncerState>,
    work: Condvar,
    done: Condvar,
    counters: SyncerCounters,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, SyncerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The writer's handle on the thread.
#[derive(Debug)]
pub(super) struct Syncer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Syncer {
    /// Starts the thread. It has the signal mask of whoever calls.
    pub(super) fn start(
        log_dir: LogDir,
        limits: LogLimits,
        first: u64,
        current: &Segment,
        progress: Arc<ProgressTable>,
    ) -> Result<Syncer, Error> {
        let state = SyncerState {
            next: NextSegment::Unwanted,
            current: CurrentSegment { first, file: current.file().clone(), end: current.end() },
            sealed: Vec::with_capacity(4), // one is made while one waits, so there are never more
            appended: 0,
            synced: 0,
            renamed: false,
            failed: 0,
            repaired: 0,
            flush: false,
            stop: false,
            outcome: Ok(()),
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            work: Condvar::new(),
            done: Condvar::new(),
            counters: SyncerCounters::default(),
        });
        let dir: Arc<Path> = log_dir.path().into();
        let theirs = shared.clone();
        let body = move || {
            SyncerThread { shared: theirs, log_dir, limits, progress, sealed: Vec::with_capacity(4) }.run()
        };
        let thread = Builder::new().name("log-sync".to_owned()).stack_size(STACK).spawn(body);
        let thread = thread.map_err(Error::io("start a thread to sync", &dir))?;
        Ok(Syncer { shared, thread: Some(thread) })
    }

    /// What the thread counted.
    pub(super) fn counters(&self) -> &SyncerCounters {
        &self.shared.counters
    }

    /// How many records may not be on the disk yet.
    pub(super) fn unsynced(&self) -> u64 {
        let state = self.shared.state();
        state.appended.saturating_sub(state.synced)
    }

    /// A record was appended and ends at `end`; `synced`: it is on the disk; `ahead`: a next segment is wanted soon.
    pub(super) fn appended(&self, end: u64, synced: bool, ahead: bool) {
        let mut state = self.shared.state();
        let mut wake = false;
        if ahead && matches!(state.next, NextSegment::Unwanted) {
            state.next = NextSegment::Wanted;
            wake = true;
        }
        wake |= state.appended == state.synced && !synced;
        state.appended += 1;
        state.current.end = end;
        if synced && state.failed == state.repaired {
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
            match std::mem::replace(&mut state.next, NextSegment::Unwanted) {
                NextSegment::Ready(segment) => return Ok(Some(segment)),
                NextSegment::Failed(error, retry) => {
                    state.next = NextSegment::Failed(error.clone(), retry);
                    return Err(Error::NoSegment(error));
                }
                NextSegment::Unwanted | NextSegment::Wanted => state.next = NextSegment::Wanted,
            }
            self.shared.work.notify_one();
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            state = self.shared.done.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Appends go to `current` now; `before` is to be synced and closed.
    pub(super) fn switched(&self, first: u64, current: &Segment, before: Segment) {
        let mut state = self.shared.state();
        state.current = CurrentSegment { first, file: current.file().clone(), end: current.end() };
        state.renamed = true;
        state.sealed.push(before);
        drop(state);
        self.shared.work.notify_one();
    }

    /// A sync by the writer itself has failed.
    pub(super) fn sync_failed(&self) {
        self.shared.state().failed += 1;
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
    Sync { current: CurrentSegment, appended: u64, renamed: bool, failed: u64, rewrite_first: bool },
    Stop,
}

/// What the thread owns.
struct SyncerThread {
    shared: Arc<Shared>,
    log_dir: LogDir,
    limits: LogLimits,
    progress: Arc<ProgressTable>,
    sealed: Vec<Segment>,
}

impl SyncerThread {
    fn run(mut self) {
        let mut sync_at = Instant::now();
        loop {
            match self.task(sync_at) {
                Task::Stop => break,
                Task::Prepare { keep } => self.prepare(keep),
                Task::Sync { current, appended, renamed, failed, rewrite_first } => {
                    let outcome = self.sync(&current, renamed, rewrite_first);
                    let pause = if outcome.is_ok() { self.limits.sync } else { self.limits.sync.max(RETRY) };
                    sync_at = Instant::now() + pause;
                    self.synced(appended, renamed, failed, outcome);
                }
            }
        }
        if self.log_dir.is_in_place() {
            let _ = remove(&self.log_dir.path().join(NEXT)); // else the next start removes it
        }
    }

    /// Waits until there is something to do.
    fn task(&mut self, sync_at: Instant) -> Task {
        let shared = self.shared.clone();
        let mut state = shared.state();
        loop {
            let now = Instant::now();
            let retry_at = match state.next {
                NextSegment::Wanted => Some(now),
                NextSegment::Failed(_, at) => Some(at),
                NextSegment::Unwanted | NextSegment::Ready(_) => None,
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
                    failed: state.failed,
                    rewrite_first: state.failed > state.repaired,
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
            Ok(segment) => NextSegment::Ready(segment),
            Err(error) => {
                self.shared.counters.create_failures.fetch_add(1, Ordering::Relaxed);
                NextSegment::Failed(Arc::new(error), Instant::now() + RETRY)
            }
        };
        self.shared.state().next = next;
        self.shared.done.notify_all();
    }

    fn make(&mut self, keep: u64) -> Result<Segment, Error> {
        self.log_dir.renew()?;
        next_room(&self.log_dir, &self.limits, Some(keep), &self.progress)?;
        make_next(&self.log_dir, &self.limits)
    }

    /// Syncs every file and returns the last error. A full segment stays in the list until it is on the disk or deleted.
    fn sync(&mut self, current: &CurrentSegment, renamed: bool, rewrite_first: bool) -> io::Result<()> {
        let sync = |file: &File, end: u64| {
            if rewrite_first {
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
        if renamed { outcome.and_then(|()| self.log_dir.sync()) } else { outcome }
    }

    fn synced(&self, appended: u64, renamed: bool, failed: u64, outcome: io::Result<()>) {
        if outcome.is_err() {
            self.shared.counters.sync_failures.fetch_add(1, Ordering::Relaxed);
        }
        let mut state = self.shared.state();
        state.outcome = match outcome {
            Ok(()) if state.failed == failed => {
                state.repaired = failed;
                state.synced = state.synced.max(appended);
                Ok(())
            }
            // The writer's own sync failed meanwhile, and the kernel tells of an error once.
            Ok(()) => Err(libc::EIO),
            Err(error) => {
                state.failed += 1;
                Err(error.raw_os_error().unwrap_or(libc::EIO))
            }
        };
        state.renamed |= renamed && state.outcome.is_err();
        state.flush = false;
        drop(state);
        self.shared.done.notify_all();
    }
}

/// Deletes old segments until one more fits into the budget.
pub(super) fn next_room(
    log_dir: &LogDir,
    limits: &LogLimits,
    keep: Option<u64>,
    progress: &ProgressTable,
) -> Result<(), Error> {
    remove(&log_dir.path().join(NEXT))?;
    retention::reclaim(log_dir, limits.budget, limits.segment, keep, progress)
}

/// Creates the next segment, under a name that marks it as not begun.
pub(super) fn make_next(log_dir: &LogDir, limits: &LogLimits) -> Result<Segment, Error> {
    let path = log_dir.path().join(NEXT);
    Segment::create(&path, limits.segment).map_err(Error::io("make", &path))
}

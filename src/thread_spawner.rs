//! Starts the threads that exist only while there is work. Starting a thread allocates, which the loop must not do, so
//! the spawner has a thread of its own, which sleeps, and a queue that is allocated at start.

use std::io;
use std::sync::Arc;
use std::thread::Builder;
use std::time::{Duration, Instant};

use crate::work_queue::{Next, Pushed, WorkQueue, WorkerGuard};

/// It does little, and what it never touches costs nothing.
const STACK: usize = 64 << 10;

/// Each worker asks for at most one thread at a time, and there are fewer workers.
const ROOM: usize = 16;

/// It only matters for a clock.
const LONG: Duration = Duration::from_secs(3600);

/// A worker: it has a queue of jobs, and a thread while jobs wait in it.
pub(crate) trait Worker: Send + Sync + 'static {
    /// Its jobs.
    type Job: Send;

    /// The thread's name.
    fn name(&self) -> &'static str;

    /// Its queue.
    fn queue(&self) -> &WorkQueue<Self::Job>;

    /// Runs on the thread. If it returns without having left `jobs`, the waiting jobs are dropped.
    fn work(&self, jobs: &mut WorkerGuard<'_, Self::Job>);

    /// Called when no thread could be started and its jobs were dropped.
    fn not_started(&self) {}
}

/// A worker, whatever its jobs are.
trait Thread: Send + Sync {
    fn name(&self) -> &'static str;
    fn run(&self);
    fn give_up(&self);
}

impl<W: Worker> Thread for W {
    fn name(&self) -> &'static str {
        Worker::name(self)
    }

    fn run(&self) {
        self.work(&mut self.queue().guard());
    }

    fn give_up(&self) {
        self.not_started();
        self.queue().abandon();
    }
}

/// Starts workers' threads when there are jobs for them.
#[derive(Clone)]
pub struct ThreadSpawner(Arc<WorkQueue<Arc<dyn Thread>>>);

impl ThreadSpawner {
    /// One that does not begin yet: threads that it is asked for wait until it does.
    pub(crate) fn new() -> ThreadSpawner {
        ThreadSpawner(Arc::new(WorkQueue::new(ROOM)))
    }

    /// Begins to start threads, on one of its own, which has the rights and the signals of whoever
    /// calls, and hands them on. Without that thread it refuses all jobs.
    pub(crate) fn begin(&self) {
        self.0.expect_worker();
        let theirs = Arc::clone(&self.0);
        let begun =
            Builder::new().name("onset-starter".into()).stack_size(STACK).spawn(move || serve(&theirs));
        if let Err(error) = begun {
            say(&error);
            self.0.abandon();
            self.0.close(Instant::now());
        }
    }

    /// Hands a job to a worker, and has a thread started for it if there is none. Takes no memory. A
    /// job that finds neither a thread nor room is dropped: false.
    pub(crate) fn push<W: Worker>(&self, worker: &Arc<W>, job: W::Job) -> bool {
        match worker.queue().push(job) {
            Pushed::Taken => true,
            Pushed::Full(_) => false,
            Pushed::NeedsThread => match self.0.push(Arc::clone(worker) as _) {
                Pushed::Full(thread) => {
                    thread.give_up();
                    false
                }
                Pushed::Taken | Pushed::NeedsThread => true,
            },
        }
    }

    /// Ends the spawner's thread, and waits for that for a bounded time.
    pub(crate) fn close(&self, deadline: Instant) {
        self.0.close(deadline);
    }
}

/// Hands a job to a worker, and starts a thread for it if there is none. That takes memory: the loop
/// has a `ThreadSpawner` for it. A job that finds neither a thread nor room is dropped: false.
pub(crate) fn push_from_thread<W: Worker>(worker: &Arc<W>, job: W::Job) -> bool {
    match worker.queue().push(job) {
        Pushed::Taken => true,
        Pushed::Full(_) => false,
        Pushed::NeedsThread => start(Arc::clone(worker) as _),
    }
}

fn serve(queue: &WorkQueue<Arc<dyn Thread>>) {
    let guard = queue.guard();
    loop {
        match guard.next(LONG) {
            Next::Job(thread) => {
                start(thread);
            }
            Next::Nothing => {}
            Next::Closed => return,
        }
    }
}

/// Nobody joins the thread: its queue's `close` waits until it left. False: it could not be started.
fn start(thread: Arc<dyn Thread>) -> bool {
    let theirs = Arc::clone(&thread);
    let started = Builder::new().name(thread.name().into()).spawn(move || theirs.run()).is_ok();
    if !started {
        thread.give_up();
    }
    started
}

fn say(error: &io::Error) {
    eprintln!("onset: cannot start a thread: {error}; there will be no captures and no names (ulimit -u)");
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    struct Adder {
        queue: WorkQueue<Arc<u32>>,
        sums: Sender<u32>,
    }

    impl Worker for Adder {
        type Job = Arc<u32>;

        fn name(&self) -> &'static str {
            "adder"
        }

        fn queue(&self) -> &WorkQueue<Arc<u32>> {
            &self.queue
        }

        fn work(&self, jobs: &mut WorkerGuard<'_, Arc<u32>>) {
            jobs.each(|number| self.sums.send(*number + 1).expect("the test waits"));
        }
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    #[test]
    fn a_job_gets_a_thread_each_time_that_there_is_none() {
        let spawner = ThreadSpawner::new();
        let (to, sums) = channel();
        let adder = Arc::new(Adder { queue: WorkQueue::new(4), sums: to });
        for number in 0..100 {
            assert!(spawner.push(&adder, Arc::new(number)));
            if number == 0 {
                assert!(sums.try_recv().is_err(), "it waits until threads are begun");
                spawner.begin();
            }
            assert_eq!(sums.recv_timeout(Duration::from_secs(10)), Ok(number + 1));
        }
        assert!(adder.queue.close(soon()));
        spawner.close(soon());
    }

    #[test]
    fn a_thread_that_may_take_memory_starts_a_worker_by_itself() {
        let (to, sums) = channel();
        let adder = Arc::new(Adder { queue: WorkQueue::new(4), sums: to });
        for number in 0..100 {
            assert!(push_from_thread(&adder, Arc::new(number)));
            assert_eq!(sums.recv_timeout(Duration::from_secs(10)), Ok(number + 1));
        }
        assert!(adder.queue.close(soon()));
        let job = Arc::new(1);
        assert!(!push_from_thread(&adder, Arc::clone(&job)));
        assert_eq!(Arc::strong_count(&job), 1);
    }

    #[test]
    fn a_job_for_which_no_thread_can_be_had_is_dropped_and_its_caller_told_so() {
        let spawner = ThreadSpawner::new();
        spawner.begin();
        spawner.close(soon());
        let adder = Arc::new(Adder { queue: WorkQueue::new(4), sums: channel().0 });
        let job = Arc::new(1);
        for _ in 0..2 {
            assert!(!spawner.push(&adder, Arc::clone(&job)));
            assert_eq!((Arc::strong_count(&job), adder.queue.has_worker()), (1, false));
        }
    }
}

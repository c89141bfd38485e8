//! Starts the threads that are there only while there is work: that takes memory, and the loop must
//! take none. So it has a thread of its own, which sleeps, and a queue that is set aside at start.

use std::io;
use std::sync::Arc;
use std::thread::Builder;
use std::time::{Duration, Instant};

use crate::inbox::{Brought, Found, Inbox};

/// It does little, and what it never touches costs nothing.
const STACK: usize = 64 << 10;

/// Each inbox asks for at most one thread at a time, and there are fewer.
const ROOM: usize = 16;

/// It only matters for a clock.
const LONG: Duration = Duration::from_secs(3600);

/// What has a thread while there is work for it.
pub(crate) trait Crew: Send + Sync {
    /// The thread's name.
    fn name(&self) -> &'static str;

    /// The thread's life: it begins a shift, and ends with it.
    fn work(self: Arc<Self>);

    /// There will be no thread: what waits for it is dropped.
    fn give_up(&self);
}

/// Starts threads when it is asked to.
#[derive(Clone)]
pub struct Starter(Arc<Inbox<Arc<dyn Crew>>>);

impl Starter {
    /// One that does not begin yet: what it is asked for waits until it does.
    pub(crate) fn new() -> Starter {
        Starter(Arc::new(Inbox::new(ROOM)))
    }

    /// Begins to start threads, on one of its own, which has the rights and the signals of whoever
    /// calls, and hands them on. Without that thread it says no to all requests.
    pub(crate) fn begin(&self) {
        self.0.staff();
        let theirs = Arc::clone(&self.0);
        let begun =
            Builder::new().name("onset-starter".into()).stack_size(STACK).spawn(move || serve(&theirs));
        if let Err(error) = begun {
            say(&error);
            drop(self.0.shift());
            self.0.close(Instant::now());
        }
    }

    /// Brings work to an inbox, and has a thread started for it if there is none. Takes no memory.
    /// Work that finds neither a thread nor room is dropped: false.
    pub(crate) fn bring<J>(&self, inbox: &Inbox<J>, job: J, crew: impl FnOnce() -> Arc<dyn Crew>) -> bool {
        match inbox.bring(job) {
            Brought::Taken => true,
            Brought::Full(_) => false,
            Brought::NeedsThread => match self.0.bring(crew()) {
                Brought::Full(crew) => {
                    crew.give_up();
                    false
                }
                Brought::Taken | Brought::NeedsThread => true,
            },
        }
    }

    /// Tells it to leave, and waits for that, but not for ever.
    pub(crate) fn close(&self, deadline: Instant) {
        self.0.close(deadline);
    }
}

fn serve(inbox: &Inbox<Arc<dyn Crew>>) {
    let shift = inbox.shift();
    loop {
        match shift.next(LONG) {
            Found::Job(crew) => start(crew),
            Found::Nothing => {}
            Found::Closed => return,
        }
    }
}

/// Nobody joins the thread: its inbox's `close` waits until it left.
fn start(crew: Arc<dyn Crew>) {
    let theirs = Arc::clone(&crew);
    if Builder::new().name(crew.name().into()).spawn(move || theirs.work()).is_err() {
        crew.give_up();
    }
}

fn say(error: &io::Error) {
    eprintln!("onset: cannot start a thread: {error}; there will be no captures and no names (ulimit -u)");
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    struct Adder {
        inbox: Inbox<Arc<u32>>,
        told: Sender<u32>,
    }

    impl Crew for Adder {
        fn name(&self) -> &'static str {
            "adder"
        }

        fn work(self: Arc<Self>) {
            let mut shift = self.inbox.shift();
            loop {
                match shift.next(Duration::ZERO) {
                    Found::Job(number) => self.told.send(*number + 1).expect("the test waits"),
                    Found::Nothing if shift.leave() => return,
                    Found::Nothing => {}
                    Found::Closed => return,
                }
            }
        }

        fn give_up(&self) {
            drop(self.inbox.shift());
        }
    }

    #[test]
    fn work_gets_a_thread_each_time_that_there_is_none() {
        let starter = Starter::new();
        let (told, tell) = channel();
        let adder = Arc::new(Adder { inbox: Inbox::new(4), told });
        for number in 0..100 {
            assert!(starter.bring(&adder.inbox, Arc::new(number), || Arc::clone(&adder) as _));
            if number == 0 {
                assert!(tell.try_recv().is_err(), "it waits until threads are begun");
                starter.begin();
            }
            assert_eq!(tell.recv_timeout(Duration::from_secs(10)), Ok(number + 1));
        }
        adder.inbox.close(Instant::now() + Duration::from_secs(10));
        starter.close(Instant::now() + Duration::from_secs(10));
    }

    #[test]
    fn work_for_which_no_thread_can_be_had_is_dropped_and_told_so() {
        let starter = Starter::new();
        starter.begin();
        starter.close(Instant::now() + Duration::from_secs(10));
        let adder = Arc::new(Adder { inbox: Inbox::new(4), told: channel().0 });
        let job = Arc::new(1);
        for _ in 0..2 {
            assert!(!starter.bring(&adder.inbox, Arc::clone(&job), || Arc::clone(&adder) as _));
            assert_eq!((Arc::strong_count(&job), adder.inbox.is_staffed()), (1, false));
        }
    }
}

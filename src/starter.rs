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

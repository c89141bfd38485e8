//! An index that takes each document once, behind a server that comes and goes.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use crate::fake::{Answer, Fake, Request};
use crate::http::free_port;
use crate::rig::{SOON, await_that};

/// What the server does with a request, one after the other, and for how long.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mood {
    Takes,
    /// Nobody is there.
    Gone,
    /// 503.
    Overloaded,
    /// Takes the documents, and closes without a word.
    TakesSilently,
    /// 429, and says when to come again.
    Throttles,
    /// Says nothing, until it is gone.
    Hangs,
}

const MOODS: [(Mood, Duration); 10] = [
    (Mood::Takes, Duration::from_secs(6)),
    (Mood::Gone, Duration::from_secs(4)),
    (Mood::Takes, Duration::from_secs(4)),
    (Mood::Overloaded, Duration::from_secs(3)),
    (Mood::Takes, Duration::from_secs(4)),
    (Mood::TakesSilently, Duration::from_secs(3)),
    (Mood::Throttles, Duration::from_secs(3)),
    (Mood::Takes, Duration::from_secs(4)),
    (Mood::Hangs, Duration::from_secs(3)),
    (Mood::Gone, Duration::from_secs(1)),
];

#[derive(Default)]
struct Shared {
    taken: Mutex<BTreeSet<String>>,
    /// Of `MOODS`.
    mood: AtomicUsize,
}

pub struct Index {
    address: SocketAddr,
    shared: Arc<Shared>,
    over: Mutex<bool>,
    told: Condvar,
    /// The last one: the agent has still to send what waits.
    stays: Mutex<Option<Fake>>,
}

/// Ends the coming and going, also where a test fails.
pub struct Over<'i>(pub &'i Index);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.over();
    }
}

impl Index {
    pub fn new() -> Index {
        let address = ([127, 0, 0, 1], free_port()).into();
        let (shared, over) = (Arc::default(), Mutex::new(false));
        Index { address, shared, over, told: Condvar::new(), stays: Mutex::default() }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The ids of all documents that it has.
    pub fn taken(&self) -> BTreeSet<String> {
        self.shared.taken.lock().unwrap().clone()
    }

    /// The server stays from now on.
    pub fn over(&self) {
        *self.over.lock().unwrap() = true;
        self.told.notify_all();
    }

    /// Comes and goes until it is over; then it stays until this is dropped. How often it was not
    /// there for those who asked.
    pub fn comes_and_goes(&self) -> usize {
        let (mut server, mut outages) = (None, 0);
        for (number, (mood, lasting)) in MOODS.iter().enumerate().cycle() {
            self.shared.mood.store(number, Ordering::SeqCst);
            if *mood == Mood::Gone {
                server = None;
            } else if server.is_none() {
                server = Some(self.server());
            }
            outages += usize::from(*mood != Mood::Takes);
            if self.is_over_within(*lasting) {
                break;
            }
        }
        self.shared.mood.store(0, Ordering::SeqCst);
        // Whoever hangs is let go.
        drop(server);
        *self.stays.lock().unwrap() = Some(self.server());
        outages
    }

    fn is_over_within(&self, lasting: Duration) -> bool {
        let over = self.over.lock().unwrap();
        *self.told.wait_timeout_while(over, lasting, |over| !*over).unwrap().0
    }

    /// One on the port of those before it.
    fn server(&self) -> Fake {
        await_that("the port to be free", SOON, || TcpStream::connect(self.address).is_err().then_some(()));
        let shared = self.shared.clone();
        Fake::start_at(self.address, move |request, _| shared.answer(request))
    }
}

impl Shared {
    fn answer(&self, request: &Request) -> Answer {
        match MOODS[self.mood.load(Ordering::SeqCst)].0 {
            Mood::Takes => self.take(request),
            Mood::TakesSilently => {
                self.take(request);
                Answer::close()
            }
            Mood::Overloaded | Mood::Gone => Answer::new(503, "scripted"),
            Mood::Throttles => Answer::new(429, "scripted").header("Retry-After", "1"),
            Mood::Hangs => Answer::never(),
        }
    }

    /// As an index does: what it has already it does not take again.
    fn take(&self, request: &Request) -> Answer {
        let mut taken = self.taken.lock().unwrap();
        let new: BTreeSet<String> = request.ids().into_iter().filter(|id| !taken.contains(id)).collect();
        taken.extend(new.iter().cloned());
        Answer::items(request, |id| if new.contains(id) { 201 } else { 409 })
    }
}

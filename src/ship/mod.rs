//! Shipping: one thread reads the log and sends what is in it to Elasticsearch or OpenSearch. The log
//! is the queue; the cursor beside it moves only past what the server has, or will never take. The
//! loop only rings a bell: whatever the server does, it waits for nothing.

use std::hash::{BuildHasher as _, Hasher as _};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::Builder;
use std::time::Duration;

mod answer;
mod batch;
#[doc(hidden)]
pub mod bench;
mod courier;
#[doc(hidden)]
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod pace;
mod rejects;
mod settings;
mod tally;
mod verdict;
mod world;

pub use rejects::{Reject, rejected};
pub use settings::{Authorization, Error, Settings};
pub use tally::{Course, Tally};

use crate::log::Mark;
use courier::{Courier, Place};
use world::{Link, World};

/// ureq, rustls and the reader of the log; it counts against no budget until it is used.
const STACK: usize = 512 << 10;

/// Where the log's folder cannot be read or written, it is tried again after this.
const OPEN_AGAIN: Duration = Duration::from_secs(10);

/// The loop's end of shipping.
#[derive(Debug)]
pub struct Shipper {
    dir: PathBuf,
    mark: Arc<Mark>,
    tally: Arc<Tally>,
    link: Option<Arc<Link>>,
}

impl Shipper {
    /// For the log in this folder. Ships nothing before it is configured.
    #[must_use]
    pub fn new(dir: &Path, mark: Arc<Mark>) -> Shipper {
        Shipper { dir: dir.to_owned(), mark, tally: Arc::new(Tally::default()), link: None }
    }

    /// Takes these settings from now on: starts the thread, tells it, or has it end.
    pub fn configure(&mut self, settings: Settings) -> io::Result<()> {
        match self.link.take().filter(|link| !link.is_gone()) {
            Some(link) => {
                link.configure(settings); // where there is no server any more it ends by itself
                self.link = Some(link);
            }
            None if settings.is_on() => self.link = Some(self.start(settings)?),
            None => {}
        }
        Ok(())
    }

    fn start(&self, settings: Settings) -> io::Result<Arc<Link>> {
        let link = Arc::new(Link::default());
        let (theirs, dir) = (link.clone(), self.dir.clone());
        let (mark, tally) = (self.mark.clone(), self.tally.clone());
        let seed = std::hash::RandomState::new().build_hasher().finish();
        let body = move || {
            let mut next = Some(settings);
            while let Some(settings) = next {
                if let Some(place) = open(&dir, &mark, &theirs, &tally) {
                    let terms = settings.terms;
                    let world = World::new(theirs.clone(), settings);
                    Courier::new(world, place, terms, seed, tally.clone()).run();
                }
                mark.end();
                tally.change(Course::Off, "");
                next = theirs.goes();
            }
        };
        Builder::new().name("ship".to_owned()).stack_size(STACK).spawn(body)?;
        Ok(link)
    }

    /// A record was put into the log.
    pub fn ring(&self) {
        if let Some(link) = &self.link {
            link.records();
        }
    }

    /// Has it send once more what is there, and waits for that, but not for longer.
    pub fn leave(&mut self, patience: Duration) {
        if let Some(link) = self.link.take() {
            link.leave();
            link.wait_gone(patience);
        }
    }

    /// What it counts.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Records of the log that are still to be shipped.
    #[must_use]
    pub fn lag(&self) -> u64 {
        self.mark.lag()
    }
}

/// Opens the place in the log; where that fails, as on a full disk, again and again. `None`: it is
/// to end.
fn open(dir: &Path, mark: &Arc<Mark>, link: &Link, tally: &Tally) -> Option<Place> {
    loop {
        match Place::open(dir, mark) {
            Ok(place) => {
                tally.change(Course::Shipping, "");
                return Some(place);
            }
            Err(error) => {
                let words = format!("cannot note how far the log is shipped: {error}");
                if tally.change(Course::Waiting, &words) {
                    eprintln!("onset: {words}; it is tried again, and nothing is shipped until then");
                }
            }
        }
        if link.pause(OPEN_AGAIN) {
            return None;
        }
    }
}

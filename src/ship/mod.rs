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
#[doc(hidden)]
pub mod fuzz;
mod pace;
mod rejects;
mod settings;
mod shipper;
mod stats;
mod transport;
mod verdict;

pub use rejects::{Reject, rejected};
pub use settings::{Authorization, Error, Settings};
pub use stats::{ShipState, ShipStats};

use crate::log::Mark;
use shipper::{Position, Shipper};
use transport::{HttpTransport, Link};

/// The output's name: its cursor's, and its label in metrics.
pub const NAME: &str = "elasticsearch";

/// ureq, rustls and the reader of the log; it counts against no budget until it is used.
const STACK: usize = 512 << 10;

/// Where the log's folder cannot be read or written, it is tried again after this.
const OPEN_AGAIN: Duration = Duration::from_secs(10);

/// The loop's end of shipping.
#[derive(Debug)]
pub struct Elasticsearch {
    dir: PathBuf,
    mark: Arc<Mark>,
    stats: Arc<ShipStats>,
    link: Option<Arc<Link>>,
}

impl Elasticsearch {
    /// For the log in this folder. Ships nothing before it is configured.
    #[must_use]
    pub fn new(dir: &Path, mark: Arc<Mark>) -> Elasticsearch {
        Elasticsearch { dir: dir.to_owned(), mark, stats: Arc::new(ShipStats::default()), link: None }
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
        let (mark, stats) = (self.mark.clone(), self.stats.clone());
        let seed = std::hash::RandomState::new().build_hasher().finish();
        let body = move || {
            let mut next = Some(settings);
            while let Some(settings) = next {
                if let Some(position) = open(&dir, &mark, &theirs, &stats) {
                    let terms = settings.terms;
                    let transport = HttpTransport::new(theirs.clone(), settings);
                    Shipper::new(transport, position, terms, seed, stats.clone()).run();
                }
                mark.end();
                stats.change(ShipState::Off, "");
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
    pub fn stats(&self) -> &ShipStats {
        &self.stats
    }

    /// Records of the log that are still to be shipped.
    #[must_use]
    pub fn lag(&self) -> u64 {
        self.mark.lag()
    }
}

/// Opens the shipper's position in the log; where that fails, as on a full disk, again and again. `None`: it is
/// to end.
fn open(dir: &Path, mark: &Arc<Mark>, link: &Link, stats: &ShipStats) -> Option<Position> {
    loop {
        match Position::open(dir, mark) {
            Ok(position) => {
                stats.change(ShipState::Shipping, "");
                return Some(position);
            }
            Err(error) => {
                let words = format!("cannot note how far the log is shipped: {error}");
                if stats.change(ShipState::Waiting, &words) {
                    eprintln!("onset: {words}; it is tried again, and nothing is shipped until then");
                }
            }
        }
        if link.pause(OPEN_AGAIN) {
            return None;
        }
    }
}

//! The loop's part in shipping: it rings the bell, and says what was forced out of the log before
//! anyone had it.

use crate::config::Config;
use crate::log::{Counters, Writer};
use crate::ship::{Elasticsearch, Settings, ShipState};

/// The output, and what the loop remembers of it.
pub(super) struct Shipping {
    pub(super) elasticsearch: Elasticsearch,
    /// Records in the log when the bell was last rung.
    rung: u64,
    /// Records that were forced out unshipped, and whether that was said.
    forced_out: u64,
    said: bool,
}

impl Shipping {
    /// For this log; ships once it is configured.
    pub(super) fn new(config: &Config, log: &Writer) -> Shipping {
        let elasticsearch = Elasticsearch::new(&config.log.dir, log.mark(crate::ship::NAME));
        Shipping { elasticsearch, rung: 0, forced_out: 0, said: false }
    }

    /// Takes what the config says of the server. That no thread can be had is said, and left.
    pub(super) fn configure(&mut self, config: &Config) {
        if let Err(error) = self.elasticsearch.configure(Settings::new(&config.elasticsearch)) {
            eprintln!(
                "onset: cannot start a thread to ship: {error}; events stay in the log; SIGHUP tries again"
            );
        }
    }

    /// At the end of a turn.
    pub(super) fn turn(&mut self, log: &Counters) {
        if self.rung != log.records {
            self.rung = log.records;
            self.elasticsearch.ring();
        }
        let more = log.dropped_unshipped.saturating_sub(self.forced_out);
        self.forced_out = log.dropped_unshipped;
        if more == 0 {
            // The next outage is told of anew.
            self.said &= self.elasticsearch.stats().state() != ShipState::Shipping;
        } else if !std::mem::replace(&mut self.said, true) {
            eprintln!(
                "onset: the log is full: its oldest {more} events were deleted before they were shipped, and more will be; \
                 raise [log] budget, or mend what onset status says of shipping"
            );
        }
    }
}

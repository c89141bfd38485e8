//! One owner's part of a page: each family that it declared is there once, and whole.

use super::{Family, Metric};
use crate::fixed_buf::FixedBuf;

/// What went wrong while a scrape was written; all zero in a correct program on a large enough buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mishaps {
    /// Families left out because the buffer had no room for all of them.
    pub truncated: u32,
    /// Families that are not declared, or were scraped before.
    pub undeclared: u32,
    /// Samples that do not fit their declaration: labels missing, or of another kind.
    pub misshapen: u32,
}

impl Mishaps {
    /// Counts these too.
    pub fn add(&mut self, more: Mishaps) {
        self.truncated = self.truncated.saturating_add(more.truncated);
        self.undeclared = self.undeclared.saturating_add(more.undeclared);
        self.misshapen = self.misshapen.saturating_add(more.misshapen);
    }
}

/// One owner's turn to write its metrics to a buffer: the families that it declared, each once.
#[derive(Debug)]
pub struct Scrape<'a> {
    buf: &'a mut FixedBuf,
    declared: &'a [Metric],
    /// A bit for each of the declared. What is beyond the last bit counts as undeclared.
    seen: u128,
    mishaps: Mishaps,
}

impl<'a> Scrape<'a> {
    /// Appends to a buffer.
    pub fn new(buf: &'a mut FixedBuf, declared: &'a [Metric]) -> Scrape<'a> {
        Scrape { buf, declared, seen: 0, mishaps: Mishaps::default() }
    }

    /// Writes one family: all of its samples at once, as the format demands. One without samples
    /// does not show.
    pub fn family(&mut self, metric: &Metric, write: impl FnOnce(&mut Family<'_>)) {
        let place = self.declared.iter().position(|declared| declared == metric);
        let bit = place.and_then(|place| 1_u128.checked_shl(u32::try_from(place).ok()?)).unwrap_or(0);
        if bit == 0 || self.seen & bit != 0 {
            self.mishaps.undeclared += 1;
            return;
        }
        self.seen |= bit;
        let start = self.buf.len();
        let mut family = Family::begin(self.buf, metric);
        write(&mut family);
        let (samples, misshapen, full) = family.end();
        self.mishaps.misshapen += misshapen;
        self.mishaps.truncated += u32::from(full);
        if full || samples == 0 {
            self.buf.truncate(start);
        }
    }

    /// Writes the declared family at this place, as `family` does: for an owner whose metrics have their names from the
    /// config.
    pub fn nth(&mut self, place: usize, write: impl FnOnce(&mut Family<'_>)) {
        let declared: &'a [Metric] = self.declared;
        match declared.get(place) {
            Some(metric) => self.family(metric, write),
            None => self.mishaps.undeclared += 1,
        }
    }

    /// The declared families that were not scraped so far.
    pub fn missing(&self) -> impl Iterator<Item = &'a Metric> {
        let seen = self.seen;
        let unseen = move |place: usize| {
            let bit = u32::try_from(place).ok().and_then(|place| 1_u128.checked_shl(place));
            bit.is_none_or(|bit| seen & bit == 0)
        };
        self.declared.iter().enumerate().filter(move |(place, _)| unseen(*place)).map(|(_, metric)| metric)
    }

    /// What went wrong so far.
    #[must_use]
    pub fn mishaps(&self) -> Mishaps {
        self.mishaps
    }
}

//! Values of all kinds out of bytes: mostly as they should be, now and then at the edges.

use std::time::Duration;

/// Values read from bytes; zeros when there are no more.
pub(super) struct Bytes<'a>(pub(super) &'a [u8]);

impl Bytes<'_> {
    pub(super) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end.max(1)
    }

    pub(super) fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// Small, large, and at the edges.
    pub(super) fn number(&mut self) -> u64 {
        match self.byte() {
            0 => u64::MAX,
            1 => u64::from(u32::MAX),
            2 => (1 << 53) + 1,
            3..=19 => 0,
            20..=99 => u64::from(self.byte()) << 16 | u64::from(self.byte()),
            _ => u64::from(self.byte()),
        }
    }

    pub(super) fn small(&mut self) -> u32 {
        u32::try_from(self.number()).unwrap_or(u32::MAX)
    }

    pub(super) fn float(&mut self) -> f64 {
        match self.byte() {
            0 => f64::NAN,
            1 => f64::INFINITY,
            2 => f64::NEG_INFINITY,
            3 => f64::MAX,
            4 => f64::MIN_POSITIVE,
            5 => -1.0,
            6 => 0.0,
            _ => f64::from(self.byte()) / 8.0,
        }
    }

    pub(super) fn time(&mut self) -> Duration {
        match self.byte() {
            0 => Duration::MAX,
            1 => Duration::from_nanos(1),
            2 => Duration::from_secs(self.number()),
            _ => Duration::from_millis(self.number()),
        }
    }

    /// From one tick to the next: mostly as it should be.
    pub(super) fn interval(&mut self) -> Duration {
        match self.byte() {
            0..=15 => Duration::ZERO,
            16..=31 => self.time(),
            _ => Duration::from_secs(10),
        }
    }

    pub(super) fn maybe<T>(&mut self, value: impl FnOnce(&mut Self) -> T) -> Option<T> {
        let there = self.byte() > 25;
        there.then(|| value(self))
    }

    /// CPU time that mostly grows with the clock: half of it, and up to 5 s more.
    pub(super) fn spent(&mut self, at: Duration) -> Duration {
        match self.byte() {
            0..=3 => self.time(),
            _ => (at / 2).saturating_add(Duration::from_millis(20) * u32::from(self.byte())),
        }
    }

    pub(super) fn text(&mut self) -> Box<str> {
        let letters = ['a', '_', '"', '\\', '\n', '\0', '\u{1f}', 'é', '\u{fffd}', '🦀'];
        (0..self.below(40)).map(|_| letters[self.below(letters.len())]).collect()
    }
}

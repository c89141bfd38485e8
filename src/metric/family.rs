//! One family, line by line: what lines share is copied from the one before.

use std::fmt::{self, Write as _};
use std::ops::Range;

use super::{Histogram, Metric, MetricKind, Value};
use crate::fixed_buf::{FixedBuf, Full};

/// One family that is being written.
#[derive(Debug)]
pub struct Family<'a> {
    buf: &'a mut FixedBuf,
    metric: &'a Metric,
    samples: u32,
    misshapen: u32,
    full: bool,
    last: Line,
}

/// What a line tells of its metric.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Part {
    #[default]
    Value,
    Bucket,
    Sum,
    Count,
}

impl Part {
    fn suffix(self) -> &'static [u8] {
        match self {
            Part::Value => b"",
            Part::Bucket => b"_bucket",
            Part::Sum => b"_sum",
            Part::Count => b"_count",
        }
    }
}

/// Where the last line is in the buffer. Samples of one container follow one another: what they begin
/// with is copied, and not looked through again.
#[derive(Debug, Default)]
struct Line {
    start: usize,
    part: Part,
    /// The texts of its first labels that needed no escape, as far as there is room here.
    labels: [Range<usize>; LABELS_MAX],
    known: usize,
}

/// Labels that are remembered; a metric with more is written all the same.
const LABELS_MAX: usize = 8;

impl<'a> Family<'a> {
    /// Begins with what the format says of the family itself.
    pub(super) fn begin(buf: &'a mut FixedBuf, metric: &'a Metric) -> Family<'a> {
        let mut family = Family { buf, metric, samples: 0, misshapen: 0, full: false, last: Line::default() };
        family.full = family.head().is_err();
        family
    }

    /// How many samples it has, how many did not fit their declaration, and whether the buffer had no room for all.
    pub(super) fn end(self) -> (u32, u32, bool) {
        (self.samples, self.misshapen, self.full)
    }

    /// The only sample of a metric without labels.
    pub fn value(&mut self, value: impl Into<Value>) {
        self.sample::<&str>(&[], value);
    }

    /// One sample: the labels' values as declared, text or foreign bytes. No two samples may have
    /// the same.
    pub fn sample<L: AsRef<[u8]>>(&mut self, labels: &[L], value: impl Into<Value>) {
        if self.fits(labels.len(), self.metric.kind != MetricKind::Histogram) {
            self.line(Part::Value, labels, None, value.into());
        }
    }

    /// A histogram's buckets, sum and count.
    pub fn histogram<L: AsRef<[u8]>, const N: usize>(&mut self, labels: &[L], histogram: &Histogram<N>) {
        if !self.fits(labels.len(), self.metric.kind == MetricKind::Histogram) {
            return;
        }
        let mut below = 0;
        for (bound, count) in histogram.bounds.iter().zip(histogram.counts) {
            below += count;
            self.line(Part::Bucket, labels, Some((*bound).into()), below.into());
        }
        self.line(Part::Bucket, labels, Some(f64::INFINITY.into()), histogram.count.into());
        self.line(Part::Sum, labels, None, histogram.sum.into());
        self.line(Part::Count, labels, None, histogram.count.into());
    }

    fn fits(&mut self, labels: usize, kind: bool) -> bool {
        let fits = kind && labels == self.metric.labels.len();
        self.misshapen += u32::from(!fits);
        fits
    }

    fn head(&mut self) -> fmt::Result {
        let Metric { name, help, kind, .. } = *self.metric;
        write!(self.buf, "# HELP {name} ")?;
        escaped(self.buf, help.as_bytes(), false).map_err(|Full| fmt::Error)?;
        writeln!(self.buf, "\n# TYPE {name} {}", kind.name())
    }

    fn line<L: AsRef<[u8]>>(&mut self, part: Part, labels: &[L], bound: Option<Value>, value: Value) {
        self.samples += 1;
        self.full = self.full || self.try_line(part, labels, bound, value).is_err();
    }

    fn try_line<L: AsRef<[u8]>>(
        &mut self,
        part: Part,
        labels: &[L],
        bound: Option<Value>,
        value: Value,
    ) -> Result<(), Full> {
        let mut place = self.begin_line(part, labels)?;
        let mut before: &[u8] = if place == 0 { b"{" } else { b"\"," };
        while let (Some(label), Some(text)) = (self.metric.labels.get(place), labels.get(place)) {
            self.buf.push(before)?;
            self.buf.push(label.as_bytes())?;
            self.buf.push(b"=\"")?;
            self.label(place, text.as_ref())?;
            before = b"\",";
            place += 1;
        }
        if let Some(bound) = bound {
            self.buf.push(before)?;
            self.buf.push(b"le=\"")?;
            bound.push(self.buf)?;
            before = b"\",";
        }
        self.buf.push(if before.len() > 1 { b"\"} " } else { b" " })?;
        value.push(self.buf)?;
        self.buf.push(b"\n")
    }

    /// Begins a line with what it shares with the last one. Returns the number of labels that both have.
    fn begin_line<L: AsRef<[u8]>>(&mut self, part: Part, labels: &[L]) -> Result<usize, Full> {
        let Family { buf, metric, last, .. } = self;
        let known = if part == last.part { last.known } else { 0 };
        last.part = part;
        let written = last.labels.get(..known).unwrap_or_default();
        let again = |(place, text): &(&Range<usize>, &L)| {
            buf.get((*place).clone()).is_some_and(|written| same(written, text.as_ref()))
        };
        let shared = written.iter().zip(labels).take_while(again).count();
        let start = std::mem::replace(&mut last.start, buf.len());
        last.known = shared;
        let Some(end) = shared.checked_sub(1).and_then(|at| Some(last.labels.get(at)?.end)) else {
            buf.push(metric.name.as_bytes())?;
            buf.push(part.suffix())?;
            return Ok(0);
        };
        buf.repeat(start..end)?;
        for place in last.labels.iter_mut().take(shared) {
            *place = place.start - start + last.start..place.end - start + last.start;
        }
        Ok(shared)
    }

    /// A label's text.
    fn label(&mut self, place: usize, text: &[u8]) -> Result<(), Full> {
        if !is_plain(text) {
            return escaped(self.buf, text, true);
        }
        let start = self.buf.len();
        self.buf.push(text)?;
        if let Some(label) = self.last.labels.get_mut(place)
            && self.last.known == place
        {
            *label = start..self.buf.len();
            self.last.known += 1;
        }
        Ok(())
    }
}

/// Whether these are the same bytes. musl's memcmp goes byte by byte, and glibc's waits for what was
/// just written.
fn same(one: &[u8], other: &[u8]) -> bool {
    /// The last of a longer text overlaps the one before.
    const WORD: usize = size_of::<u64>();
    let word = |bytes: &[u8; WORD]| u64::from_ne_bytes(*bytes);
    if one.len() != other.len() {
        return false;
    }
    match (one.last_chunk(), other.last_chunk()) {
        (Some(last), Some(other_last)) => {
            let (words, others) = (one.as_chunks().0, other.as_chunks().0);
            word(last) == word(other_last)
                && words.iter().zip(others).all(|(one, other)| word(one) == word(other))
        }
        _ => one.iter().zip(other).all(|(one, other)| one == other),
    }
}

/// Text that stands for itself in quotes.
pub(super) fn is_plain(text: &[u8]) -> bool {
    let (words, rest) = text.as_chunks();
    words.iter().all(|word| is_plain_word(u64::from_ne_bytes(*word)))
        && rest.iter().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\'))
}

/// The same of eight bytes at once. In each of the terms a byte's highest bit is set if that byte is not
/// plain; should a byte of `word` itself have it, the carries of others do not matter any more.
fn is_plain_word(word: u64) -> bool {
    const EACH: u64 = 0x0101_0101_0101_0101;
    const HIGHEST: u64 = 0x80 * EACH;
    let below = |word: u64, least: u8| !(word | HIGHEST).wrapping_sub(u64::from(least) * EACH);
    let is = |byte: u8| below(word ^ (u64::from(byte) * EACH), 1);
    let above = word.wrapping_add((0x7f - u64::from(b'~')) * EACH);
    (word | below(word, b' ') | above | is(b'"') | is(b'\\')) & HIGHEST == 0
}

/// Text as the format wants it. A byte that is no UTF-8, and NUL, which ends the text for some
/// readers, become U+FFFD.
fn escaped(buf: &mut FixedBuf, text: &[u8], quoted: bool) -> Result<(), Full> {
    const UNREADABLE: &[u8] = "\u{fffd}".as_bytes();
    for chunk in text.utf8_chunks() {
        let mut rest = chunk.valid().as_bytes();
        let special = |byte: &u8| matches!(byte, b'\\' | b'\n' | 0) || (quoted && *byte == b'"');
        while let Some(at) = rest.iter().position(special) {
            let (plain, from) = rest.split_at(at);
            buf.push(plain)?;
            buf.push(match from.first() {
                Some(b'\\') => b"\\\\",
                Some(b'\n') => b"\\n",
                Some(b'"') => b"\\\"",
                _ => UNREADABLE,
            })?;
            rest = from.get(1..).unwrap_or_default();
        }
        buf.push(rest)?;
        if !chunk.invalid().is_empty() {
            buf.push(UNREADABLE)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_the_same_only_if_every_byte_is() {
        let text: Vec<u8> = (0..40).collect();
        for len in 0..text.len() {
            let one = &text[..len];
            assert!(same(one, one) && !same(one, &text[..len + 1]));
            for at in 0..len {
                let mut other = one.to_vec();
                other[at] ^= 0x80;
                assert!(!same(one, &other), "byte {at} of {len}");
            }
        }
    }
}

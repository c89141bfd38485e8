//! Metrics in the Prometheus text format 0.0.4: declared once as constants, written straight into
//! a buffer that never grows. A family is in the buffer whole or not at all.

use std::fmt::{self, Write as _};
use std::ops::Range;
use std::time::Duration;

use crate::fixed_buf::{FixedBuf, Full};

/// One family of metrics, declared once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// In base units, counters ending in `_total`.
    pub name: &'static str,
    /// A full sentence.
    pub help: &'static str,
    /// How its values behave.
    pub kind: MetricKind,
    /// The names of its labels; every sample gives a value for each, in this order.
    pub labels: &'static [&'static str],
}

/// How the values of a metric behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows, from 0 at start.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations by size.
    Histogram,
}

impl MetricKind {
    fn name(self) -> &'static str {
        match self {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        }
    }
}

/// The value of a sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// Written digit by digit.
    Whole(u64),
    /// Written as the shortest number that reads back the same.
    Real(f64),
}

impl From<u64> for Value {
    fn from(value: u64) -> Value {
        Value::Whole(value)
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Value {
        Value::Whole(value.into())
    }
}

impl From<usize> for Value {
    fn from(value: usize) -> Value {
        Value::Whole(value as u64)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Value {
        Value::Whole(value.into())
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Value {
        Value::Real(value)
    }
}

/// In seconds.
impl From<Duration> for Value {
    fn from(value: Duration) -> Value {
        Value::Real(value.as_secs_f64())
    }
}

impl Value {
    /// Appends the value to `buf`. Whole numbers, and most values of an idle host are, take the short way.
    fn push(self, buf: &mut FixedBuf) -> Result<(), Full> {
        match self {
            Value::Whole(value) => digits(value, buf),
            Value::Real(0.0) => buf.push(b"0"),
            Value::Real(_) => write!(buf, "{self}").map_err(|fmt::Error| Full),
        }
    }
}

fn digits(mut value: u64, buf: &mut FixedBuf) -> Result<(), Full> {
    /// As many as the largest has.
    const DIGITS: usize = 20;
    let mut text = [b'0'; DIGITS];
    let mut at = DIGITS;
    loop {
        at -= 1;
        #[allow(clippy::cast_possible_truncation)] // below 10
        let digit = (value % 10) as u8;
        if let Some(place) = text.get_mut(at) {
            *place += digit;
        }
        value /= 10;
        if value == 0 {
            return buf.push(text.get(at..).unwrap_or_default());
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Value::Whole(value) => value.fmt(f),
            Value::Real(value) if value.is_nan() => f.write_str("NaN"),
            Value::Real(value) if value.is_infinite() => {
                f.write_str(if value > 0.0 { "+Inf" } else { "-Inf" })
            }
            Value::Real(value) if value == 0.0 || (1e-6..1e16).contains(&value.abs()) => value.fmt(f),
            Value::Real(value) => fmt::LowerExp::fmt(&value, f),
        }
    }
}

/// Observations by size, in `N` buckets and one for all that is larger.
#[derive(Clone, Copy, Debug)]
pub struct Histogram<const N: usize> {
    bounds: [Duration; N],
    counts: [u64; N],
    count: u64,
    sum: Duration,
    max: Duration,
}

impl<const N: usize> Histogram<N> {
    /// An empty one; each bucket counts what is no longer than its bound. Bounds must rise.
    #[must_use]
    pub const fn new(bounds: [Duration; N]) -> Histogram<N> {
        Histogram { bounds, counts: [0; N], count: 0, sum: Duration::ZERO, max: Duration::ZERO }
    }

    /// Counts one observation.
    pub fn observe(&mut self, took: Duration) {
        let bucket = self.bounds.iter().zip(&mut self.counts).find(|(bound, _)| took <= **bound);
        if let Some((_, count)) = bucket {
            *count += 1;
        }
        self.count += 1;
        self.sum = self.sum.saturating_add(took);
        self.max = self.max.max(took);
    }

    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The longest since start.
    #[must_use]
    pub fn max(&self) -> Duration {
        self.max
    }
}

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
        let mut family =
            Family { buf: self.buf, metric, samples: 0, misshapen: 0, full: false, last: Line::default() };
        family.full = family.head().is_err();
        write(&mut family);
        let Family { samples, misshapen, full, .. } = family;
        self.mishaps.misshapen += misshapen;
        self.mishaps.truncated += u32::from(full);
        if full || samples == 0 {
            self.buf.truncate(start);
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

impl Family<'_> {
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
        let mut place = self.begin(part, labels)?;
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
    fn begin<L: AsRef<[u8]>>(&mut self, part: Part, labels: &[L]) -> Result<usize, Full> {
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
fn is_plain(text: &[u8]) -> bool {
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
mod tests;

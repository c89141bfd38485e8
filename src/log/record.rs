//! A segment's header and a record's head as bytes and as values, and the search for the next
//! head in bytes that hold none where one should be. Pure; the layout is docs/log-format.md's.

use crate::record_id::{Id, RecordId};

/// The format that is written here, and the newest that is read.
pub const VERSION: u32 = 1;
/// Bytes of a segment's header: its first record begins there.
pub const HEADER: usize = 64;
/// Bytes of a record's head.
pub const HEAD: usize = 32;
/// A longer body is no record: the largest `[log] document` that the config takes.
pub const BODY_MAX: usize = 16 << 20;
/// Numbers stay below, so that adding to one cannot overflow.
pub const SEQ_END: u64 = 1 << 63;
/// Records begin at multiples of this.
pub const ALIGN: usize = 8;

const SEGMENT_MAGIC: &[u8; 8] = b"onsetlog";
const RECORD_MAGIC: &[u8; 4] = b"oREC";
const RUN: u64 = 1 << 32;

/// The first number of the run after that of `seq`.
#[must_use]
pub fn next_run(seq: u64) -> Option<u64> {
    let next = (seq / RUN).checked_add(1)?.checked_mul(RUN)?;
    (next < SEQ_END).then_some(next)
}

/// How many records are missing where `found` comes instead of `expected`. 0 where a new run begins: how far the run
/// before it came is not known.
#[must_use]
pub fn gap(expected: u64, found: u64) -> u64 {
    if expected / RUN == found / RUN { found.saturating_sub(expected) } else { 0 }
}

/// Bytes of a record whose body has `body` bytes, padding included.
#[must_use]
pub fn footprint(body: usize) -> usize {
    body.saturating_add(HEAD).saturating_add(ALIGN - 1) / ALIGN * ALIGN
}

/// A segment's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The log that the segment belongs to, and the run that began it.
    pub log: Id,
    /// Number of its first record.
    pub first: u64,
    /// Size of the file.
    pub size: u64,
}

/// A segment's first bytes, parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParsedHeader {
    /// A header.
    Sound(Header),
    /// A header of a later format.
    Newer(u32),
    /// Zeros: nothing was ever written here.
    Blank,
    /// No header, or one that has rotted.
    Bad,
}

impl Header {
    /// As bytes.
    #[must_use]
    pub fn bytes(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(SEGMENT_MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.log.0);
        bytes[24..32].copy_from_slice(&self.first.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.size.to_le_bytes());
        let sum = crc32fast::hash(&bytes[..60]);
        bytes[60..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// From a segment's first bytes.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> ParsedHeader {
        let Some(bytes) = bytes.first_chunk::<HEADER>() else {
            return if bytes.iter().all(|byte| *byte == 0) { ParsedHeader::Blank } else { ParsedHeader::Bad };
        };
        if bytes.iter().all(|byte| *byte == 0) {
            return ParsedHeader::Blank;
        }
        let sum = u32::from_le_bytes(part(bytes, 60));
        if part::<8>(bytes, 0) != *SEGMENT_MAGIC || sum != crc32fast::hash(&bytes[..60]) {
            return ParsedHeader::Bad;
        }
        let version = u32::from_le_bytes(part(bytes, 8));
        let header = Header {
            log: Id(part(bytes, 16)),
            first: u64::from_le_bytes(part(bytes, 24)),
            size: u64::from_le_bytes(part(bytes, 32)),
        };
        match version {
            VERSION if header.first < SEQ_END => ParsedHeader::Sound(header),
            0..=VERSION => ParsedHeader::Bad,
            newer => ParsedHeader::Newer(newer),
        }
    }
}

/// What a record's head must match to be valid at its offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Where its head is in the file.
    pub offset: u64,
    /// The log and run, where they are known.
    pub log: Option<Id>,
    /// The least number that the record may have.
    pub floor: u64,
}

/// A record's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The record's id.
    pub id: RecordId,
    /// Length of its body.
    pub len: usize,
    sum: u32,
}

impl Head {
    /// The head for this body.
    #[must_use]
    pub fn new(id: RecordId, body: &[u8]) -> Head {
        Head { id, len: body.len(), sum: crc32fast::hash(body) }
    }

    /// As bytes, for `offset` in the file. `None`: the body is too long.
    #[must_use]
    pub fn bytes(&self, offset: u64) -> Option<[u8; HEAD]> {
        let len = u32::try_from(self.len).ok().filter(|_| self.len <= BODY_MAX)?;
        let mut bytes = [0; HEAD];
        bytes[..4].copy_from_slice(RECORD_MAGIC);
        bytes[4..8].copy_from_slice(&len.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.id.seq.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.id.log.0);
        bytes[24..28].copy_from_slice(&self.sum.to_le_bytes());
        let sum = head_sum(offset, &bytes);
        bytes[28..].copy_from_slice(&sum.to_le_bytes());
        Some(bytes)
    }

    /// From the bytes at the expected offset. `None`: there is no valid head.
    #[must_use]
    pub fn parse(bytes: &[u8], expected: Expected) -> Option<Head> {
        let bytes = bytes.first_chunk::<HEAD>()?;
        let sum = u32::from_le_bytes(part(bytes, 28));
        if !starts(bytes) || sum != head_sum(expected.offset, bytes) {
            return None;
        }
        let head = Head {
            id: RecordId { seq: u64::from_le_bytes(part(bytes, 8)), log: Id(part(bytes, 16)) },
            len: usize::try_from(u32::from_le_bytes(part(bytes, 4))).ok()?,
            sum: u32::from_le_bytes(part(bytes, 24)),
        };
        let here = expected.log.is_none_or(|log| log == head.id.log || follows(log, expected.floor, head.id))
            && (expected.floor..SEQ_END).contains(&head.id.seq)
            && head.len <= BODY_MAX;
        here.then_some(head)
    }

    /// Whether `body` is the record's body.
    #[must_use]
    pub fn matches(&self, body: &[u8]) -> bool {
        body.len() == self.len && crc32fast::hash(body) == self.sum
    }
}

/// The first head in `bytes` at a multiple of 8; `bytes` begin at one. `Err`: there is none, and this many bytes need
/// not be searched again.
pub fn find(bytes: &[u8], expected: Expected) -> Result<(usize, Head), usize> {
    let mut at = 0;
    while let Some(rest) = bytes.get(at..)
        && rest.len() >= HEAD
    {
        if starts(rest)
            && let Some(head) =
                Head::parse(rest, Expected { offset: expected.offset.saturating_add(at as u64), ..expected })
        {
            return Ok((at, head));
        }
        at += ALIGN;
    }
    Err(at)
}

/// Whether the record `id` belongs to a later run of `log` than the one that had come to `floor`.
fn follows(log: Id, floor: u64, id: RecordId) -> bool {
    log.same_log(id.log) && id.seq / RUN > floor / RUN
}

fn starts(bytes: &[u8]) -> bool {
    bytes.first_chunk() == Some(RECORD_MAGIC)
}

fn head_sum(offset: u64, bytes: &[u8; HEAD]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&offset.to_le_bytes());
    sum.update(&bytes[..28]);
    sum.finalize()
}

/// `N` bytes at the offset `at`; the caller knows that `bytes` are long enough.
fn part<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut part = [0; N];
    if let Some(from) = bytes.get(at..at + N) {
        part.copy_from_slice(from);
    }
    part
}

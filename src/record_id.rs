//! The names of logs, of their runs and of their records. Pure: the log gives them out, and whoever makes
//! events may hold them.

use std::fmt;
use std::str::FromStr;

/// The name of a run of a log. It begins as all names of its log do; the rest is random, so that
/// copies of a log, and a log that was set back, go on under names that nobody else has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(pub [u8; 8]);

impl Id {
    /// Bytes that tell a log. To take another for ours would only ship its records once more;
    /// what must not happen twice is the rest.
    const LOG: usize = 2;

    /// Whether both are of one log, or of copies of it.
    #[must_use]
    pub fn same_log(self, other: Id) -> bool {
        self.0[..Id::LOG] == other.0[..Id::LOG]
    }

    /// A further run of this log, made of random bytes.
    pub(crate) fn next(self, random: Id) -> Id {
        let mut next = random;
        next.0[..Id::LOG].copy_from_slice(&self.0[..Id::LOG]);
        next
    }
}

/// As 16 hex digits.
impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

/// A record's name, unique for ever: `tracer_id` in documents, `_id` in Elasticsearch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordId {
    /// Its log, and the run.
    pub log: Id,
    /// Its number, growing from run to run.
    pub seq: u64,
}

/// As 32 hex digits, the log's first.
impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:016x}", self.log, self.seq)
    }
}

impl serde::Serialize for RecordId {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// A text that is no event's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event's id is 32 hex digits, as `onset events` shows them")]
pub struct NoId;

/// Reads what `Display` writes.
impl FromStr for RecordId {
    type Err = NoId;

    fn from_str(text: &str) -> Result<RecordId, NoId> {
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(NoId);
        }
        let (log, seq) = text.split_at(16);
        let number = |text| u64::from_str_radix(text, 16).map_err(|_| NoId);
        Ok(RecordId { log: Id(number(log)?.to_be_bytes()), seq: number(seq)? })
    }
}

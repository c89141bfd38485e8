//! A reader's position in one segment, and the segment that it continues in. In a directory with more than one
//! log the reader keeps a position for each, so that it sees the records of whichever log is still written.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::log_dir::SegmentFile;
use super::record::ParsedHeader;
use super::scan::Scan;
use super::{Error, Id};

/// A directory with segments of more logs is an archive: no log in it is written, so none is followed.
const OTHER_LOGS_MAX: usize = 32;

/// A segment that is being read.
#[derive(Debug)]
pub(super) struct SegmentReader {
    pub(super) listed: SegmentFile,
    path: PathBuf,
    pub(super) file: File,
    /// Its device and inode.
    inode: (u64, u64),
    pub(super) scan: Scan,
    /// Bytes behind its last record that are no record.
    pub(super) torn: u64,
    pub(super) state: SegmentState,
}

/// Whether a segment may still grow.
#[derive(Clone, Copy, Debug)]
pub(super) enum SegmentState {
    /// It may: no segment follows it yet.
    Live,
    /// Another segment follows: this one is done once it is read to its end.
    Sealed(Jump),
}

/// The way to another segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Jump {
    pub(super) to: SegmentFile,
    /// Why the records between the two segments are not there.
    pub(super) cause: GapCause,
}

/// Why records between two segments are not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GapCause {
    /// They are lost: the numbers should be consecutive.
    Missing,
    /// Retention deleted them, and the segment before.
    Dropped,
    /// Another log began: their number is not known.
    Unknown,
    /// The segment has the name of the one before: it is a copy of it, or new.
    Replaced,
}

impl SegmentReader {
    /// Opens `file` at its first record and returns its parsed header.
    pub(super) fn begin(
        listed: SegmentFile,
        path: &Path,
        file: File,
    ) -> Result<(SegmentReader, ParsedHeader), Error> {
        let mut scan = Scan::default();
        let header = scan.begin(&file, listed.first).map_err(Error::io("read", path))?;
        let data = file.metadata().map_err(Error::io("look at", path))?;
        let inode = (data.dev(), data.ino());
        let path = path.to_owned();
        Ok((SegmentReader { listed, path, file, inode, scan, torn: 0, state: SegmentState::Live }, header))
    }

    /// Returns to the first record of the same file, whatever file has its name by now.
    pub(super) fn restart(&mut self) -> Result<(), Error> {
        self.torn = 0;
        let begun = self.scan.begin(&self.file, self.listed.first);
        begun.map(drop).map_err(Error::io("read", &self.path))
    }

    /// Where the segment was when it was opened.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether another file has its name, or none.
    pub(super) fn is_gone(&self) -> bool {
        match std::fs::symlink_metadata(&self.path) {
            Ok(there) => (there.dev(), there.ino()) != self.inode,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }

    /// The same position without its read buffer; the segment may grow again.
    fn without_buffer(mut self) -> SegmentReader {
        self.scan.drop_buffer();
        SegmentReader { state: SegmentState::Live, ..self }
    }

    /// Whether it is known to be of this log.
    pub(super) fn is_of(&self, log: Id) -> bool {
        self.scan.log().is_some_and(|ours| ours.same_log(log))
    }

    /// Whether both are known to be of one log.
    pub(super) fn is_same_log_as(&self, other: &SegmentReader) -> bool {
        self.scan.log().is_some_and(|log| other.is_of(log))
    }
}

/// Positions at the ends of the other logs in the directory, the one that was read longest ago first.
#[derive(Debug, Default)]
pub(super) struct OtherLogs(Vec<SegmentReader>);

impl OtherLogs {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn iter(&self) -> std::slice::Iter<'_, SegmentReader> {
        self.0.iter()
    }

    /// Keeps the position in `left`, which the reader leaves for another segment, unless no record of it was ever
    /// read. Returns the torn bytes of the positions that are dropped.
    pub(super) fn keep(&mut self, left: SegmentReader) -> u64 {
        if left.scan.log().is_none() {
            return left.torn;
        }
        self.0.push(left.without_buffer());
        let over = self.0.len().saturating_sub(OTHER_LOGS_MAX);
        self.0.drain(..over).map(|tail| tail.torn).fold(0, u64::saturating_add)
    }

    /// The torn bytes of all of them.
    pub(super) fn torn(&self) -> u64 {
        self.0.iter().map(|tail| tail.torn).fold(0, u64::saturating_add)
    }

    /// Drops the positions in segments that come before `with` in its log. Returns their torn bytes.
    pub(super) fn drop_before(&mut self, with: &SegmentReader) -> u64 {
        let before =
            |tail: &mut SegmentReader| tail.is_same_log_as(with) && tail.listed.first < with.listed.first;
        self.0.extract_if(.., before).map(|tail| tail.torn).fold(0, u64::saturating_add)
    }

    /// Exchanges `tail` for the position that was read longest ago.
    pub(super) fn rotate(&mut self, tail: Option<SegmentReader>) -> Option<SegmentReader> {
        self.0.extend(tail);
        (!self.0.is_empty()).then(|| self.0.remove(0))
    }
}

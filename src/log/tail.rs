//! Where a reader is in one segment, and where it goes from there. A folder that holds more than
//! one log has such a place for each: whichever of them is still written, its records are seen.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::folder::Listed;
use super::record::Opening;
use super::scan::Scan;
use super::{Error, Id};

/// A folder with segments of more logs is an archive: nobody writes there, so nothing is to be followed.
const TAILS_MAX: usize = 32;

/// A segment that is read.
#[derive(Debug)]
pub(super) struct Tail {
    pub(super) listed: Listed,
    path: PathBuf,
    pub(super) file: File,
    /// Its device and inode.
    inode: (u64, u64),
    pub(super) scan: Scan,
    /// Bytes behind its last record that are none.
    pub(super) torn: u64,
    pub(super) follow: Follow,
}

/// What comes behind a segment.
#[derive(Clone, Copy, Debug)]
pub(super) enum Follow {
    /// Nothing yet.
    Live,
    /// Another segment: once this one is read to its end, it is done.
    Sealed(Jump),
}

/// The way to another segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Jump {
    pub(super) to: Listed,
    /// How the records in between went.
    pub(super) between: Between,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Between {
    /// There should be none.
    Missing,
    /// The budget took them, and this segment too.
    Dropped,
    /// Another log began: nobody knows.
    Unknown,
    /// It is under the name of the one before: a copy of it, or something new.
    Replaced,
}

impl Tail {
    /// At the beginning of a segment, and what that says.
    pub(super) fn begin(listed: Listed, path: &Path, file: File) -> Result<(Tail, Opening), Error> {
        let mut scan = Scan::default();
        let opening = scan.begin(&file, listed.first).map_err(Error::io("read", path))?;
        let data = file.metadata().map_err(Error::io("look at", path))?;
        let inode = (data.dev(), data.ino());
        let path = path.to_owned();
        Ok((Tail { listed, path, file, inode, scan, torn: 0, follow: Follow::Live }, opening))
    }

    /// At its beginning once more. The same file: another one may have its name by now, or none.
    pub(super) fn again(&mut self) -> Result<(), Error> {
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

    /// As one that nothing comes behind yet, without a piece of its segment in memory.
    fn rested(mut self) -> Tail {
        self.scan.rest();
        Tail { follow: Follow::Live, ..self }
    }

    /// Whether it is known to be of this log.
    pub(super) fn is_of(&self, log: Id) -> bool {
        self.scan.log().is_some_and(|ours| ours.same_log(log))
    }

    /// Whether both are known to be of one log.
    pub(super) fn is_along(&self, other: &Tail) -> bool {
        self.scan.log().is_some_and(|log| other.is_of(log))
    }
}

/// The ends of the other logs in the folder, the longest waiting first.
#[derive(Debug, Default)]
pub(super) struct Others(Vec<Tail>);

impl Others {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn iter(&self) -> std::slice::Iter<'_, Tail> {
        self.0.iter()
    }

    /// Keeps the end of a segment that is left for another. Where nothing was ever read, nothing is
    /// waited for. Returns the bytes that are torn in what is not kept.
    pub(super) fn keep(&mut self, left: Tail) -> u64 {
        if left.scan.log().is_none() {
            return left.torn;
        }
        self.0.push(left.rested());
        let over = self.0.len().saturating_sub(TAILS_MAX);
        self.0.drain(..over).map(|tail| tail.torn).fold(0, u64::saturating_add)
    }

    /// The bytes that are torn in all of them.
    pub(super) fn torn(&self) -> u64 {
        self.0.iter().map(|tail| tail.torn).fold(0, u64::saturating_add)
    }

    /// Forgets the segments that came before this one in its log. Returns the bytes that are torn in them.
    pub(super) fn done(&mut self, with: &Tail) -> u64 {
        let before = |tail: &mut Tail| tail.is_along(with) && tail.listed.first < with.listed.first;
        self.0.extract_if(.., before).map(|tail| tail.torn).fold(0, u64::saturating_add)
    }

    /// The one that waits longest, for this one.
    pub(super) fn turn(&mut self, tail: Option<Tail>) -> Option<Tail> {
        self.0.extend(tail);
        (!self.0.is_empty()).then(|| self.0.remove(0))
    }
}

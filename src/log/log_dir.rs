//! The log's directory: created and locked for one writer, and listed for anyone.

use std::fmt::Write as _;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::record::SEQ_END;
use super::{Error, calls};
use crate::takeover;

/// The name of a segment before its first record.
pub(super) const NEXT: &str = "next";
const LOCK: &str = "lock";
const SUFFIX: &str = ".seg";
/// 16 hex digits and the suffix.
const NAME: usize = 20;

/// The name of the segment whose first record is `first`, without a heap allocation.
#[derive(Clone, Copy, Debug)]
pub(super) struct SegmentName([u8; NAME]);

impl SegmentName {
    pub(super) fn new(first: u64) -> SegmentName {
        let mut name = *b"0000000000000000.seg";
        for (at, digit) in name.iter_mut().take(16).enumerate() {
            let nibble = first >> (60 - 4 * at) & 15;
            *digit = b"0123456789abcdef".get(usize::try_from(nibble).unwrap_or(0)).copied().unwrap_or(b'0');
        }
        SegmentName(name)
    }

    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or(NEXT)
    }

    pub(super) fn parse(name: &str) -> Option<u64> {
        let digits = name.strip_suffix(SUFFIX)?;
        let plain = digits.len() == 16 && digits.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
        u64::from_str_radix(digits, 16).ok().filter(|first| plain && *first < SEQ_END)
    }
}

/// A segment as the directory lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentFile {
    /// The number in its name.
    pub(super) first: u64,
    /// Its size in bytes.
    pub(super) size: u64,
}

/// The segments in a directory, oldest first.
pub(super) fn list(dir: &Path) -> Result<Vec<SegmentFile>, Error> {
    let mut segments = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(Error::io("list", dir))? {
        let entry = entry.map_err(Error::io("list", dir))?;
        let Some(first) = entry.file_name().to_str().and_then(SegmentName::parse) else { continue };
        match entry.metadata() {
            Ok(data) if data.is_file() => segments.push(SegmentFile { first, size: data.len() }),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {} // deleted meanwhile
            Err(error) => return Err(Error::io("look at", &entry.path())(error)),
        }
    }
    segments.sort_unstable_by_key(|segment| segment.first);
    Ok(segments)
}

/// A directory's change time comes from a coarse clock: of two changes within this time the later may not show.
const COARSE: Duration = if cfg!(test) { Duration::from_millis(20) } else { Duration::from_secs(1) };

/// After this many looks in a row that found a directory unchanged, it is listed again.
const LOOKS_MAX: u32 = 64;

/// A directory's device, inode and change time; it is only compared, never read as a time.
type DirStamp = [i64; 4];

/// A directory in which nothing new was found. While its change time stays, no name in it came or went, and it need not
/// be listed again.
#[derive(Debug)]
pub(super) struct UnchangedDir {
    stamp: DirStamp,
    since: Instant,
    /// It was listed long enough after its last change for the next change to show.
    sure: bool,
    looks: u32,
}

impl UnchangedDir {
    /// Whether `dir` has not changed since it was last listed. Else `unchanged` describes it as it is now, to be kept if
    /// nothing new is found in it.
    pub(super) fn is_unchanged(unchanged: &mut Option<UnchangedDir>, dir: &Path) -> bool {
        let Some(stamp) = UnchangedDir::stamp(dir) else {
            *unchanged = None;
            return false;
        };
        match unchanged {
            Some(unchanged) if unchanged.stamp == stamp => {
                unchanged.looks += 1;
                if unchanged.sure && unchanged.looks < LOOKS_MAX {
                    return true;
                }
                (unchanged.sure, unchanged.looks) = (unchanged.since.elapsed() > COARSE, 0);
            }
            _ => *unchanged = Some(UnchangedDir { stamp, since: Instant::now(), sure: false, looks: 0 }),
        }
        false
    }

    fn stamp(dir: &Path) -> Option<DirStamp> {
        let data = std::fs::metadata(dir).ok()?;
        let [dev, ino] = [data.dev(), data.ino()].map(u64::cast_signed);
        Some([dev, ino, data.ctime(), data.ctime_nsec()])
    }

    /// Whether the next look needs no listing.
    #[cfg(test)]
    pub(super) fn is_sure(&self) -> bool {
        self.sure
    }
}

/// The path of the segment whose first record is `first`.
pub(super) fn segment_path(dir: &Path, first: u64) -> PathBuf {
    dir.join(SegmentName::new(first).as_str())
}

/// A log's directory, locked for one writer.
#[derive(Debug)]
pub(super) struct LogDir {
    dir: PathBuf,
    lock: File,
}

impl LogDir {
    /// Creates the directory where it is missing, and locks it. Waits for an agent that is exiting, and for a child of it
    /// between fork and exec.
    pub(super) fn lock(dir: &Path) -> Result<LogDir, Error> {
        takeover::take(|error| matches!(error, Error::Held { .. }), || LogDir::try_lock(dir))
    }

    /// Creates the directory where it is missing, and locks it. Does not wait.
    fn try_lock(dir: &Path) -> Result<LogDir, Error> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(Error::io("make", dir))?;
        let path = dir.join(LOCK);
        let open =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let mut lock = open.map_err(Error::io("open", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Held { dir: dir.to_owned(), pid: holder(&mut lock) });
            }
            Err(TryLockError::Error(error)) => return Err(Error::io("lock", &path)(error)),
        }
        let mut pid = String::new();
        let _ = writeln!(pid, "{}", std::process::id());
        // Only for the message that another onset shows, so a full disk is no reason to give up.
        let _ = lock.set_len(0).and_then(|()| lock.write_all(pid.as_bytes()));
        Ok(LogDir { dir: dir.to_owned(), lock })
    }

    /// Creates and locks the directory again if it was deleted or moved.
    pub(super) fn renew(&mut self) -> Result<(), Error> {
        if !self.is_in_place() {
            *self = LogDir::try_lock(&self.dir)?;
        }
        Ok(())
    }

    /// Whether its path still names the directory that is locked.
    pub(super) fn is_in_place(&self) -> bool {
        let there = std::fs::symlink_metadata(self.dir.join(LOCK));
        match (self.lock.metadata(), there) {
            (Ok(ours), Ok(there)) => ours.dev() == there.dev() && ours.ino() == there.ino(),
            _ => false,
        }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.dir
    }

    /// Makes names and deletions last through a power failure.
    pub(super) fn sync(&self) -> io::Result<()> {
        calls::sync_all(&File::open(&self.dir)?)
    }
}

/// Deletes a file that may be gone already.
pub(super) fn remove(path: &Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("delete", path)(error)),
        _ => Ok(()),
    }
}

fn holder(lock: &mut File) -> Option<u32> {
    let mut text = String::new();
    lock.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

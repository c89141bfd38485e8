//! The log's folder: made and locked for one writer, and listed for anyone.

use std::fmt::Write as _;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::record::SEQ_END;
use super::{Error, calls};
use crate::takeover;

/// What a segment is called before it has its name.
pub(super) const NEXT: &str = "next";
const LOCK: &str = "lock";
const SUFFIX: &str = ".seg";
/// 16 hex digits and the suffix.
const NAME: usize = 20;

/// The name of the segment that begins with this number, without a heap.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name([u8; NAME]);

impl Name {
    pub(super) fn new(first: u64) -> Name {
        let mut name = *b"0000000000000000.seg";
        for (at, digit) in name.iter_mut().take(16).enumerate() {
            let nibble = first >> (60 - 4 * at) & 15;
            *digit = b"0123456789abcdef".get(usize::try_from(nibble).unwrap_or(0)).copied().unwrap_or(b'0');
        }
        Name(name)
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

/// A segment as the folder shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    /// The number in its name.
    pub(super) first: u64,
    /// Its size in bytes.
    pub(super) size: u64,
}

/// The segments in a folder, oldest first.
pub(super) fn list(dir: &Path) -> Result<Vec<Listed>, Error> {
    let mut segments = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(Error::io("list", dir))? {
        let entry = entry.map_err(Error::io("list", dir))?;
        let Some(first) = entry.file_name().to_str().and_then(Name::parse) else { continue };
        match entry.metadata() {
            Ok(data) if data.is_file() => segments.push(Listed { first, size: data.len() }),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {} // deleted meanwhile
            Err(error) => return Err(Error::io("look at", &entry.path())(error)),
        }
    }
    segments.sort_unstable_by_key(|segment| segment.first);
    Ok(segments)
}

/// A folder's stamps are of a coarse clock: of two changes within this the later may not show.
const COARSE: Duration = if cfg!(test) { Duration::from_millis(20) } else { Duration::from_secs(1) };

/// After this many looks in a row at an unchanged folder it is listed again.
const BELIEVED: u32 = 64;

/// What a folder says of its last change: its inode, and a stamp that is compared and never read as a time.
type Stamp = [i64; 4];

/// A folder in which nothing was found. While it says that no name in it came or went, it need not be
/// listed again.
#[derive(Debug)]
pub(super) struct Calm {
    stamp: Stamp,
    since: Instant,
    /// It was listed when its last change was so long ago that the next one shows.
    sure: bool,
    asked: u32,
}

impl Calm {
    /// Whether nothing can be new in it; `calm` is then what is to be kept if nothing is found in it.
    pub(super) fn is_still(calm: &mut Option<Calm>, dir: &Path) -> bool {
        let Some(stamp) = Calm::stamp(dir) else {
            *calm = None;
            return false;
        };
        match calm {
            Some(calm) if calm.stamp == stamp => {
                calm.asked += 1;
                if calm.sure && calm.asked < BELIEVED {
                    return true;
                }
                (calm.sure, calm.asked) = (calm.since.elapsed() > COARSE, 0);
            }
            _ => *calm = Some(Calm { stamp, since: Instant::now(), sure: false, asked: 0 }),
        }
        false
    }

    fn stamp(dir: &Path) -> Option<Stamp> {
        let data = std::fs::metadata(dir).ok()?;
        let [dev, ino] = [data.dev(), data.ino()].map(u64::cast_signed);
        Some([dev, ino, data.ctime(), data.ctime_nsec()])
    }

    /// Whether the next look spares the list.
    #[cfg(test)]
    pub(super) fn is_sure(&self) -> bool {
        self.sure
    }
}

/// The path of the segment that begins with this number.
pub(super) fn path(dir: &Path, first: u64) -> PathBuf {
    dir.join(Name::new(first).as_str())
}

/// A folder that is locked for one writer.
#[derive(Debug)]
pub(super) struct Folder {
    dir: PathBuf,
    lock: File,
}

impl Folder {
    /// Makes the folder where it is missing, and locks it. Waits for an agent that is exiting, and for a child of its
    /// between fork and exec.
    pub(super) fn take(dir: &Path) -> Result<Folder, Error> {
        takeover::take(|error| matches!(error, Error::Held { .. }), || Folder::hold(dir))
    }

    /// Makes the folder where it is missing, and locks it. Does not wait.
    fn hold(dir: &Path) -> Result<Folder, Error> {
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
        Ok(Folder { dir: dir.to_owned(), lock })
    }

    /// Makes and locks the folder again if it was taken away.
    pub(super) fn renew(&mut self) -> Result<(), Error> {
        if !self.held() {
            *self = Folder::hold(&self.dir)?;
        }
        Ok(())
    }

    /// Whether the folder in its place is still the one that is locked.
    pub(super) fn held(&self) -> bool {
        let there = std::fs::symlink_metadata(self.dir.join(LOCK));
        match (self.lock.metadata(), there) {
            (Ok(ours), Ok(there)) => ours.dev() == there.dev() && ours.ino() == there.ino(),
            _ => false,
        }
    }

    /// Where it is.
    pub(super) fn dir(&self) -> &Path {
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

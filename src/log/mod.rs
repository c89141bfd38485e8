//! The log: fixed-size segments of checksummed records, which is also the queue of the outputs. A record exists once
//! its checksums match; before that it never happened. One `Writer` appends; any number of `Reader`s follow it, also
//! after it died. The format: docs/log-format.md.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

mod calls;
mod cursor;
#[doc(hidden)]
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod log_dir;
mod progress;
mod reader;
pub mod record;
mod recovery;
mod retention;
mod scan;
mod segment;
mod segment_reader;
mod syncer;
mod writer;

pub use crate::record_id::{Id, NoId, RecordId};
pub use cursor::Cursor;
pub use progress::Progress;
pub use reader::{LogRecord, ReadReport, Reader, get, verify};
pub use recovery::RecoveryReport;
pub use writer::{Counters, Writer};

/// What can be wrong with a log.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Two writers would overwrite each other.
    #[error("another onset holds {}{}; stop it, or set [log] dir to another folder", dir.display(), Pid(*pid))]
    Held {
        /// The log's folder.
        dir: PathBuf,
        /// Who holds it, where that is known.
        pid: Option<u32>,
    },
    /// Written by a later onset.
    #[error(
        "{} has log format {version}, but this onset only knows up to {}; use the newer onset, or move the folder away",
        path.display(),
        record::VERSION
    )]
    Newer {
        /// The segment.
        path: PathBuf,
        /// Its format.
        version: u32,
    },
    /// A cursor's file carries its name.
    #[error("no output can be called \"{name}\"; a name is 1 to 32 of a to z, 0 to 9 and -")]
    CursorName {
        /// The name.
        name: String,
    },
    /// The system refused.
    #[error("cannot {doing} {}: {source}{}", path.display(), remedy(source))]
    Io {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: Arc<Path>,
        /// The kernel's word.
        source: io::Error,
    },
    /// The current segment is full or gone, and there is no next one.
    #[error("no segment for another document: {0}; it is tried again every second")]
    NoSegment(Arc<Error>),
    /// The disk did not answer in the time that the loop may wait.
    #[error("the disk under {} is too slow: it gave no answer within {ms} ms", dir.display())]
    Stalled {
        /// The log's folder.
        dir: Arc<Path>,
        /// How long it was waited for.
        ms: u128,
    },
    /// The writer said that it wrote more than it was given.
    #[error("a document of {used} bytes was claimed, but only {given} were there for it")]
    TooLong {
        /// What it said.
        used: usize,
        /// What it had.
        given: usize,
    },
    /// Only a forged log gets there.
    #[error("the log in {} has run out of numbers; move the folder away", dir.display())]
    Exhausted {
        /// The log's folder.
        dir: Arc<Path>,
    },
}

impl Error {
    fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Io { doing, path: path.into(), source }
    }
}

struct Pid(Option<u32>);

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(pid) => write!(f, " (pid {pid})"),
            None => Ok(()),
        }
    }
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; make room there, or lower [log] segment and budget"
        }
        io::ErrorKind::NotFound => {
            "; no onset has written there yet, or [log] dir (--dir) names another folder"
        }
        io::ErrorKind::PermissionDenied => "; run onset as root, or set [log] dir",
        io::ErrorKind::ReadOnlyFilesystem => "; set [log] dir to a folder that can be written",
        _ => "",
    }
}

#[cfg(test)]
mod tests;

//! An output's position in the log.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::OutputStats;
use crate::log::{Cursor, Error, Progress, Reader, RecordId};

/// How far an output has read a log: in its cursor, for a restart, and in its progress, for retention.
#[derive(Debug)]
pub struct Position {
    dir: PathBuf,
    cursor: Cursor,
    done: Option<RecordId>,
    progress: Arc<Progress>,
    stats: Arc<OutputStats>,
}

impl Position {
    /// Opens the cursor of the output of `progress`, and counts what it has not read yet.
    pub fn open(dir: &Path, progress: &Arc<Progress>, stats: &Arc<OutputStats>) -> Result<Position, Error> {
        let (cursor, done) = Cursor::named(progress.name(), dir)?;
        progress.begin(dir, done)?;
        Ok(Position { dir: dir.to_owned(), cursor, done, progress: progress.clone(), stats: stats.clone() })
    }

    /// Reads the log after the record `after`; all of it for `None`.
    pub fn reader(&self, after: Option<RecordId>) -> Result<Reader, Error> {
        self.progress.reader(&self.dir, after)
    }

    /// Everything up to the record `to` is done. Neither waits for the disk nor allocates. A cursor that cannot be written
    /// is counted; after a restart records are then read again.
    pub fn advance(&mut self, to: RecordId) {
        if self.cursor.set(to).is_err() {
            self.stats.cursor_failures.fetch_add(1, Ordering::Relaxed);
        }
        self.progress.advance(to);
        self.done = Some(to);
    }

    /// The last record that is done.
    #[must_use]
    pub fn done(&self) -> Option<RecordId> {
        self.done
    }

    /// Syncs the cursor to the disk. Without that, records are read again after a power failure.
    pub fn sync(&self) {
        let _ = self.cursor.sync(); // it spares reading again, no more
    }

    /// Whether the cursor's file held no valid entry.
    #[must_use]
    pub fn was_bad(&self) -> bool {
        self.cursor.was_bad()
    }

    /// Records that are still to be read.
    #[must_use]
    pub fn lag(&self) -> u64 {
        self.progress.lag()
    }

    /// The log's folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What the output counts.
    #[must_use]
    pub fn stats(&self) -> &OutputStats {
        &self.stats
    }
}

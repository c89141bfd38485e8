//! Retention: the oldest segments are deleted when a new one would exceed the log's budget, whether every output has
//! read them or not. The records that an output loses are counted for it.

use std::fs::File;
use std::io;

use super::log_dir::{self, LogDir, remove};
use super::progress::{DropCount, ProgressTable};
use super::record::ParsedHeader;
use super::scan::{Scan, Step};
use super::{Error, calls};

/// Deletes the oldest segments until `more` bytes fit into the budget; the one that begins with `keep` stays.
/// `progress` counts the deleted records.
pub(super) fn reclaim(
    log_dir: &LogDir,
    budget: u64,
    more: u64,
    keep: Option<u64>,
    progress: &ProgressTable,
) -> Result<(), Error> {
    let segments = log_dir::list(log_dir.path())?;
    let mut total = segments.iter().fold(more, |sum, segment| sum.saturating_add(segment.size));
    for segment in segments {
        if total <= budget {
            break;
        }
        if keep == Some(segment.first) {
            continue;
        }
        let path = log_dir::segment_path(log_dir.path(), segment.first);
        let count = calls::open(&path).and_then(|file| count(&file, segment.first, progress));
        remove(&path)?;
        if let Ok(count) = count {
            progress.dropped(&count);
        }
        total = total.saturating_sub(segment.size);
    }
    Ok(())
}

/// Counts the records of a segment; one of a later format counts as empty.
fn count(file: &File, first: u64, progress: &ProgressTable) -> io::Result<DropCount> {
    let mut scan = Scan::default();
    let mut count = progress.count();
    if let ParsedHeader::Newer(_) = scan.begin(file, first)? {
        return Ok(count);
    }
    loop {
        match scan.next(file)? {
            Step::Record { id, body, .. } if !body.is_empty() => count.record(id.seq),
            Step::Record { .. } | Step::Bad { .. } => {}
            Step::End { .. } => return Ok(count),
        }
    }
}

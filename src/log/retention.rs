//! The log's budget: the oldest segments are deleted when a new one would not fit, whether every output has
//! read them or not. What that costs is counted for each output.

use std::fs::File;
use std::io;

use super::folder::{self, Folder, remove};
use super::mark::{Dropped, Marks};
use super::record::Opening;
use super::scan::{Scan, Step};
use super::{Error, calls};

/// Deletes the oldest segments until `more` bytes fit into the budget; the one that begins with
/// `keep` stays. The marks count the records that went.
pub(super) fn reclaim(
    folder: &Folder,
    budget: u64,
    more: u64,
    keep: Option<u64>,
    marks: &Marks,
) -> Result<(), Error> {
    let segments = folder::list(folder.dir())?;
    let mut total = segments.iter().fold(more, |sum, segment| sum.saturating_add(segment.size));
    for segment in segments {
        if total <= budget {
            break;
        }
        if keep == Some(segment.first) {
            continue;
        }
        let path = folder::path(folder.dir(), segment.first);
        let held = calls::open(&path).and_then(|file| count(&file, segment.first, marks));
        remove(&path)?;
        if let Ok(held) = held {
            marks.dropped(&held);
        }
        total = total.saturating_sub(segment.size);
    }
    Ok(())
}

/// Counts what a segment holds. Of one with a later format nobody knows.
fn count(file: &File, first: u64, marks: &Marks) -> io::Result<Dropped> {
    let mut scan = Scan::default();
    let mut held = marks.count();
    if let Opening::Newer(_) = scan.begin(file, first)? {
        return Ok(held);
    }
    loop {
        match scan.next(file)? {
            Step::Record { id, body, .. } if !body.is_empty() => held.record(id.seq),
            Step::Record { .. } | Step::Bad { .. } => {}
            Step::End { .. } => return Ok(held),
        }
    }
}

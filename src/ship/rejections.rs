//! Records that the server will never take, noted beside the log so that a person can find them: one JSON object a
//! line. A full file is renamed, and the older one deleted.

use std::fs::OpenOptions;
use std::io::{self, BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::bulk_reply::ErrorReason;
use crate::clock::Wall;
use crate::log::RecordId;

const NAME: &str = "rejected";
const OLDER: &str = "rejected.old";
/// Thousands of rejections: more are not told apart by anyone.
const SIZE_MAX: u64 = 1 << 20;
/// A longer line is none of ours.
const LINE_MAX: usize = 64 << 10;

/// One rejection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    /// The event.
    pub id: String,
    /// When it was rejected.
    pub time: String,
    /// The server's status for it, as of HTTP; 0: it was not even sent.
    pub status: u16,
    /// The server's name for what is wrong.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its words.
    pub reason: String,
}

/// The file of rejections, to append to.
#[derive(Debug)]
pub(super) struct RejectionLog {
    path: PathBuf,
    older: PathBuf,
}

impl RejectionLog {
    pub(super) fn new(dir: &Path) -> RejectionLog {
        RejectionLog { path: dir.join(NAME), older: dir.join(OLDER) }
    }

    /// Appends the rejection of `id`.
    pub(super) fn add(&mut self, id: RecordId, now: Wall, why: &ErrorReason) -> io::Result<()> {
        let reject = Rejection {
            id: id.to_string(),
            time: now.to_string(),
            status: why.status,
            kind: why.kind.clone(),
            reason: why.reason.clone(),
        };
        let mut line = serde_json::to_vec(&reject)?;
        line.push(b'\n');
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)?;
        if file.metadata()?.len() >= SIZE_MAX {
            std::fs::rename(&self.path, &self.older)?;
            file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)?;
        }
        file.write_all(&line) // in one write(2): a line is whole or torn, never mixed
    }
}

/// All rejections noted in `dir`, oldest first. Lines that are no rejection are skipped; a record that was noted twice
/// counts once.
pub fn rejected(dir: &Path) -> io::Result<Vec<Rejection>> {
    let mut all: Vec<Rejection> = Vec::new();
    let mut known = std::collections::HashSet::new();
    for name in [OLDER, NAME] {
        let file = match std::fs::File::open(dir.join(name)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        notes(BufReader::new(file), |note| {
            if known.insert(note.id.clone()) {
                all.push(note);
            }
        })?;
    }
    Ok(all)
}

/// The notes in one file.
pub(super) fn notes(file: impl io::BufRead, mut each: impl FnMut(Rejection)) -> io::Result<()> {
    for line in file.split(b'\n') {
        let line = line?;
        if let Some(note) = serde_json::from_slice(&line).ok().filter(|_| line.len() <= LINE_MAX) {
            each(note);
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::log::Id;

    fn folder(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("onset-rejects-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    fn why(reason: &str) -> ErrorReason {
        ErrorReason { status: 400, kind: "mapper_parsing_exception".into(), reason: reason.into() }
    }

    #[test]
    fn rejections_are_read_back_even_with_a_torn_line() {
        let dir = folder("torn");
        assert_eq!(rejected(&dir).unwrap(), []);
        let mut rejections = RejectionLog::new(&dir);
        for seq in [1, 2, 2, 3] {
            rejections.add(RecordId { log: Id([1; 8]), seq }, Wall(0), &why("a \"quoted\" field")).unwrap();
        }
        let whole = std::fs::read(dir.join(NAME)).unwrap();
        std::fs::write(dir.join(NAME), &whole[..whole.len() - 10]).unwrap();
        let found = rejected(&dir).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found[1].id, "01010101010101010000000000000002");
        assert_eq!((found[0].status, found[0].reason.as_str()), (400, "a \"quoted\" field"));
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn the_rejection_file_is_bounded_and_keeps_the_newest() {
        let dir = folder("bounded");
        let mut rejections = RejectionLog::new(&dir);
        let reason = "x".repeat(1000);
        for seq in 1..=4000 {
            rejections.add(RecordId { log: Id([1; 8]), seq }, Wall(0), &why(&reason)).unwrap();
        }
        let size = |name| std::fs::metadata(dir.join(name)).unwrap().len();
        assert!(size(NAME) + size(OLDER) < 2 * SIZE_MAX + 4096);
        let found = rejected(&dir).unwrap();
        assert!(found.len() > 900 && found.last().unwrap().id.ends_with(&format!("{:x}", 4000)));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}

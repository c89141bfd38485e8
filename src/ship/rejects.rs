//! What the server will never take is noted beside the log, so that it can be found: a JSON object
//! a line, in a file that is begun anew when it is full and kept once under another name.

use std::fs::OpenOptions;
use std::io::{self, BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::verdict::Why;
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
pub struct Reject {
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

/// The notes, to write.
#[derive(Debug)]
pub(super) struct Rejects {
    path: PathBuf,
    older: PathBuf,
}

impl Rejects {
    pub(super) fn new(dir: &Path) -> Rejects {
        Rejects { path: dir.join(NAME), older: dir.join(OLDER) }
    }

    /// Notes one.
    pub(super) fn add(&mut self, id: RecordId, now: Wall, why: &Why) -> io::Result<()> {
        let reject = Reject {
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

/// All that are noted in this folder, oldest first. What is no note is passed over; one that was noted
/// twice counts once.
pub fn rejected(dir: &Path) -> io::Result<Vec<Reject>> {
    let mut all: Vec<Reject> = Vec::new();
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
pub(super) fn notes(file: impl io::BufRead, mut each: impl FnMut(Reject)) -> io::Result<()> {
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

    fn why(reason: &str) -> Why {
        Why { status: 400, kind: "mapper_parsing_exception".into(), reason: reason.into() }
    }

    #[test]
    fn what_is_noted_is_found_though_a_line_is_torn() {
        let dir = folder("torn");
        assert_eq!(rejected(&dir).unwrap(), []);
        let mut rejects = Rejects::new(&dir);
        for seq in [1, 2, 2, 3] {
            rejects.add(RecordId { log: Id([1; 8]), seq }, Wall(0), &why("a \"quoted\" field")).unwrap();
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
    fn the_notes_do_not_grow_without_end_and_the_newest_are_kept() {
        let dir = folder("bounded");
        let mut rejects = Rejects::new(&dir);
        let reason = "x".repeat(1000);
        for seq in 1..=4000 {
            rejects.add(RecordId { log: Id([1; 8]), seq }, Wall(0), &why(&reason)).unwrap();
        }
        let size = |name| std::fs::metadata(dir.join(name)).unwrap().len();
        assert!(size(NAME) + size(OLDER) < 2 * SIZE_MAX + 4096);
        let found = rejected(&dir).unwrap();
        assert!(found.len() > 900 && found.last().unwrap().id.ends_with(&format!("{:x}", 4000)));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}

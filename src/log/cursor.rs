//! How far an output has read the log: a small file beside the segments, named after the output, with the id of
//! the last record that is done. Its two slots are written in turn, so a torn write leaves the entry before.
//! Where the file comes back old or is lost, records are sent again under the same ids.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::log_dir::remove;
use super::record::SEQ_END;
use super::{Error, Id, RecordId};
use crate::sys;

/// The file is called after the output, with this suffix.
const SUFFIX: &str = ".cursor";
/// The longest name of an output.
const NAME_MAX: usize = 32;
/// The file name of the only cursor before cursors had names, and the output that it belongs to.
pub(super) const UNNAMED: (&str, &str) = ("shipped", "elasticsearch");
/// The format that is written here, and the newest that is read.
const VERSION: u32 = 1;
const MAGIC: &[u8; 8] = b"onsetcur";
/// Bytes of one entry.
pub(super) const ENTRY: usize = 48;
/// The second entry begins here: no disk tears two blocks with one write.
pub(super) const BLOCK: u64 = 4096;
/// Turns stay below: a forged entry with a later one is bad, and adding to a turn cannot overflow.
const TURN_END: u64 = 1 << 63;

/// The content of one of the file's two slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CursorSlot {
    /// An entry: the last record that is done, and how many entries came before.
    Entry { turn: u64, id: RecordId },
    /// Nothing was ever written.
    Blank,
    /// Written by a later onset.
    Newer(u32),
    /// Torn, or rotten.
    Bad,
}

impl CursorSlot {
    pub(super) fn parse(bytes: &[u8], at: u64) -> CursorSlot {
        if bytes.iter().all(|byte| *byte == 0) {
            return CursorSlot::Blank;
        }
        let Some((fields, sum)) = bytes.first_chunk::<ENTRY>().and_then(|bytes| bytes.split_last_chunk())
        else {
            return CursorSlot::Bad;
        };
        if !fields.starts_with(MAGIC) || crc32fast::hash(fields) != u32::from_le_bytes(*sum) {
            return CursorSlot::Bad;
        }
        let version = number(fields, 8) & u64::from(u32::MAX);
        let (turn, seq) = (number(fields, 16), number(fields, 32));
        let id = RecordId { log: Id(number(fields, 24).to_le_bytes()), seq };
        match u32::try_from(version) {
            Ok(VERSION) if turn < TURN_END && turn % 2 == at && seq < SEQ_END => {
                CursorSlot::Entry { turn, id }
            }
            Ok(newer) if newer > VERSION => CursorSlot::Newer(newer),
            _ => CursorSlot::Bad,
        }
    }
}

pub(super) fn entry(turn: u64, id: RecordId) -> [u8; ENTRY] {
    let mut bytes = [0; ENTRY];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[16..24].copy_from_slice(&turn.to_le_bytes());
    bytes[24..32].copy_from_slice(&id.log.0);
    bytes[32..40].copy_from_slice(&id.seq.to_le_bytes());
    let sum = crc32fast::hash(&bytes[..ENTRY - 4]);
    bytes[ENTRY - 4..].copy_from_slice(&sum.to_le_bytes());
    bytes
}

fn number(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// The content of the file: its newer entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct CursorFile {
    turn: u64,
    id: Option<RecordId>,
    newer: Option<u32>,
    /// Something is written there, but no slot has an entry.
    bad: bool,
}

impl CursorFile {
    fn from_slots(slots: [CursorSlot; 2]) -> CursorFile {
        let mut content = CursorFile { bad: slots.contains(&CursorSlot::Bad), ..CursorFile::default() };
        for slot in slots {
            match slot {
                CursorSlot::Entry { turn, id } if content.id.is_none() || turn > content.turn => {
                    (content.turn, content.id) = (turn, Some(id));
                }
                CursorSlot::Newer(version) => content.newer = Some(version),
                _ => {}
            }
        }
        CursorFile { bad: content.bad && content.id.is_none(), ..content }
    }

    /// A slot that cannot be read is bad.
    fn read(file: &File) -> CursorFile {
        let slot = |at: u64| {
            let mut bytes = [0; ENTRY];
            match read_at(file, &mut bytes, at * BLOCK) {
                Ok(()) => CursorSlot::parse(&bytes, at),
                Err(_) => CursorSlot::Bad,
            }
        };
        CursorFile::from_slots([slot(0), slot(1)])
    }
}

/// Fills `to` as far as the file reaches; the rest of it stays as it is.
fn read_at(file: &File, mut to: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !to.is_empty() {
        match file.read_at(to, offset) {
            Ok(0) => return Ok(()),
            Ok(got) => {
                offset += got as u64;
                to = to.get_mut(got..).unwrap_or_default();
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The path of the cursor called `name`.
pub(super) fn path(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}{SUFFIX}"))
}

fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=NAME_MAX).contains(&name.len()) && name.bytes().all(plain)
}

/// The id in the cursor called `name`, read without opening it for writing.
pub(super) fn peek(name: &str, dir: &Path) -> Option<RecordId> {
    peek_at(&path(dir, name))
}

fn peek_at(path: &Path) -> Option<RecordId> {
    File::open(path).ok().and_then(|file| CursorFile::read(&file).id)
}

/// All cursors in the log's directory, by name, with the ids in them.
pub(super) fn list(dir: &Path) -> Result<Vec<(String, Option<RecordId>)>, Error> {
    let mut cursors = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(Error::io("list", dir))? {
        let entry = entry.map_err(Error::io("list", dir))?;
        let file = entry.file_name();
        let name = file.to_str().and_then(|file| file.strip_suffix(SUFFIX)).filter(|name| is_name(name));
        if let Some(name) = name {
            cursors.push((name.to_owned(), peek_at(&entry.path())));
        }
    }
    cursors.sort_unstable();
    Ok(cursors)
}

/// Renames the cursor of a log that an earlier onset wrote. Where both names exist, an earlier onset ran once
/// more, and the cursor that is further on is kept. Call it with the directory locked.
pub(super) fn migrate_unnamed(dir: &Path) -> Result<(), Error> {
    let (old, new) = (dir.join(UNNAMED.0), path(dir, UNNAMED.1));
    if std::fs::symlink_metadata(&old).is_err() {
        return Ok(());
    }
    let kept = match (peek_at(&old), peek(UNNAMED.1, dir)) {
        (Some(old), Some(new)) => old.log.same_log(new.log) && old.seq > new.seq,
        (None, Some(_)) => false,
        (_, None) => true,
    };
    if kept { std::fs::rename(&old, &new).map_err(Error::io("name", &new)) } else { remove(&old) }
}

/// An output's position in the log, on the disk.
#[derive(Debug)]
pub struct Cursor {
    path: PathBuf,
    file: File,
    turn: u64,
    was_bad: bool,
}

impl Cursor {
    /// Opens or creates the cursor of the output called `name` and returns the last record that is done. `None`: no
    /// record is known to be done; `was_bad` tells whether the file held something unreadable.
    pub fn named(name: &str, dir: &Path) -> Result<(Cursor, Option<RecordId>), Error> {
        if !is_name(name) {
            return Err(Error::CursorName { name: name.to_owned() });
        }
        let path = path(dir, name);
        let (file, content) = open(&path).map_err(Error::io("open", &path))?;
        if let Some(version) = content.newer {
            return Err(Error::Newer { path, version });
        }
        Ok((Cursor { path, file, turn: content.turn, was_bad: content.bad }, content.id))
    }

    /// Whether the file existed, but neither slot held a valid entry.
    #[must_use]
    pub fn was_bad(&self) -> bool {
        self.was_bad
    }

    /// Everything up to the record `id` is done. A file that was deleted, with its directory too, is
    /// created again once the directory exists. Does not wait for the disk, and allocates nothing.
    pub fn set(&mut self, id: RecordId) -> io::Result<()> {
        if !self.in_place()? {
            let (file, content) = open(&self.path)?;
            if content.newer.is_some() {
                return Err(io::ErrorKind::InvalidData.into()); // not ours to write over
            }
            (self.file, self.turn) = (file, content.turn);
        }
        let turn = self.turn + 1; // below TURN_END
        self.file.write_all_at(&entry(turn, id), turn % 2 * BLOCK)?;
        self.turn = turn; // only now: the next try writes over what has failed
        Ok(())
    }

    /// Syncs the file to the disk. Without that, records are sent again after a power failure.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn in_place(&self) -> io::Result<bool> {
        let is = |there: &Metadata, ours: &Metadata| there.dev() == ours.dev() && there.ino() == ours.ino();
        match std::fs::symlink_metadata(&self.path) {
            Ok(there) => Ok(is(&there, &self.file.metadata()?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Opens the file and allocates all its blocks, so that a full disk is an error here and not later.
fn open(path: &Path) -> io::Result<(File, CursorFile)> {
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    match sys::fallocate(&file, 2 * BLOCK) {
        Err(error) if error.raw_os_error() != Some(libc::EOPNOTSUPP) => return Err(error),
        _ => {}
    }
    let content = CursorFile::read(&file);
    Ok((file, content))
}

#[cfg(test)]
mod tests;

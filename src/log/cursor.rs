//! How far an output has read the log: a small file beside the segments, called after the output, with the id of
//! the last record that is done. Two places in it are written in turn, so a torn write leaves the one before.
//! It may come back old, or be lost: then records are sent again under the same ids.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::folder::remove;
use super::record::SEQ_END;
use super::{Error, Id, RecordId};
use crate::sys;

/// What stands behind the output's name in the file's.
const SUFFIX: &str = ".cursor";
/// The longest name of an output.
const NAME_MAX: usize = 32;
/// The one cursor of a log before cursors had names, and whose it was.
pub(super) const UNNAMED: (&str, &str) = ("shipped", "elasticsearch");
/// The format that is written here, and the newest that is read.
const VERSION: u32 = 1;
const MAGIC: &[u8; 8] = b"onsetcur";
/// Bytes of one entry.
pub(super) const ENTRY: usize = 48;
/// The second entry begins here: no disk tears two blocks with one write.
pub(super) const BLOCK: u64 = 4096;
/// Later turns are forged; with them, the one after might not be newer.
const TURN_END: u64 = 1 << 63;

/// What one place in the file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// An entry: the last record that is done, and how many entries came before.
    Entry { turn: u64, id: RecordId },
    /// Nothing was ever written.
    Blank,
    /// Written by a later onset.
    Newer(u32),
    /// Torn, or rotten.
    Bad,
}

impl Place {
    pub(super) fn parse(bytes: &[u8], at: u64) -> Place {
        if bytes.iter().all(|byte| *byte == 0) {
            return Place::Blank;
        }
        let Some((fields, sum)) = bytes.first_chunk::<ENTRY>().and_then(|bytes| bytes.split_last_chunk())
        else {
            return Place::Bad;
        };
        if !fields.starts_with(MAGIC) || crc32fast::hash(fields) != u32::from_le_bytes(*sum) {
            return Place::Bad;
        }
        let version = number(fields, 8) & u64::from(u32::MAX);
        let (turn, seq) = (number(fields, 16), number(fields, 32));
        let id = RecordId { log: Id(number(fields, 24).to_le_bytes()), seq };
        match u32::try_from(version) {
            Ok(VERSION) if turn < TURN_END && turn % 2 == at && seq < SEQ_END => Place::Entry { turn, id },
            Ok(newer) if newer > VERSION => Place::Newer(newer),
            _ => Place::Bad,
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

/// What a whole file says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Said {
    turn: u64,
    id: Option<RecordId>,
    newer: Option<u32>,
    /// There is something, but no entry.
    bad: bool,
}

impl Said {
    fn of(places: [Place; 2]) -> Said {
        let mut said = Said { bad: places.contains(&Place::Bad), ..Said::default() };
        for place in places {
            match place {
                Place::Entry { turn, id } if said.id.is_none() || turn > said.turn => {
                    (said.turn, said.id) = (turn, Some(id));
                }
                Place::Newer(version) => said.newer = Some(version),
                _ => {}
            }
        }
        Said { bad: said.bad && said.id.is_none(), ..said }
    }

    /// What cannot be read is as good as rotten.
    fn read(file: &File) -> Said {
        let place = |at: u64| {
            let mut bytes = [0; ENTRY];
            match read_at(file, &mut bytes, at * BLOCK) {
                Ok(()) => Place::parse(&bytes, at),
                Err(_) => Place::Bad,
            }
        };
        Said::of([place(0), place(1)])
    }
}

/// Fills what the file has; the rest stays as it is.
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

/// Where the cursor with this name is.
pub(super) fn path(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}{SUFFIX}"))
}

fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=NAME_MAX).contains(&name.len()) && name.bytes().all(plain)
}

/// The id that the cursor with this name says, for who only wants to know.
pub(super) fn peek(name: &str, dir: &Path) -> Option<RecordId> {
    peek_at(&path(dir, name))
}

fn peek_at(path: &Path) -> Option<RecordId> {
    File::open(path).ok().and_then(|file| Said::read(&file).id)
}

/// All cursors in a log's folder with what they say, by name.
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

/// Gives the cursor of a log that an earlier onset wrote its name. Where both are there, an earlier onset ran once
/// more: the one that is further on is kept. Call it with the folder locked.
pub(super) fn name_the_unnamed(dir: &Path) -> Result<(), Error> {
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

/// An output's place in the log.
#[derive(Debug)]
pub struct Cursor {
    path: PathBuf,
    file: File,
    turn: u64,
    was_bad: bool,
}

impl Cursor {
    /// Opens the cursor of the output with this name in a log, or makes it, and tells the last record that is
    /// done. `None`: nothing is known to be; `was_bad` tells whether something should have been.
    pub fn named(name: &str, dir: &Path) -> Result<(Cursor, Option<RecordId>), Error> {
        if !is_name(name) {
            return Err(Error::CursorName { name: name.to_owned() });
        }
        let path = path(dir, name);
        let (file, said) = open(&path).map_err(Error::io("open", &path))?;
        if let Some(version) = said.newer {
            return Err(Error::Newer { path, version });
        }
        Ok((Cursor { path, file, turn: said.turn, was_bad: said.bad }, said.id))
    }

    /// Whether the file was there, but said nothing that could be believed.
    #[must_use]
    pub fn was_bad(&self) -> bool {
        self.was_bad
    }

    /// Everything up to this record is done. A file that was taken away, its folder too, is
    /// made again once the folder is there. Does not wait for the disk, and allocates nothing.
    pub fn set(&mut self, id: RecordId) -> io::Result<()> {
        if !self.in_place()? {
            let (file, said) = open(&self.path)?;
            if said.newer.is_some() {
                return Err(io::ErrorKind::InvalidData.into()); // not ours to write over
            }
            (self.file, self.turn) = (file, said.turn);
        }
        let turn = self.turn + 1; // below TURN_END
        self.file.write_all_at(&entry(turn, id), turn % 2 * BLOCK)?;
        self.turn = turn; // only now: the next try writes over what has failed
        Ok(())
    }

    /// Has it on the disk. Not needed, but spares sending again after a power failure.
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

/// Opens the file with all its blocks, so that a full disk is an error here and not later.
fn open(path: &Path) -> io::Result<(File, Said)> {
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    match sys::fallocate(&file, 2 * BLOCK) {
        Err(error) if error.raw_os_error() != Some(libc::EOPNOTSUPP) => return Err(error),
        _ => {}
    }
    let said = Said::read(&file);
    Ok((file, said))
}

#[cfg(test)]
mod tests;

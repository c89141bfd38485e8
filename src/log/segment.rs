//! The segment that is written: a file with all its blocks, mapped. Its size is checked before each record, because
//! others may truncate or delete it; its name is checked now and then, because they may move it.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use memmap2::{MmapMut, MmapOptions, UncheckedAdvice};

use super::RecordId;
use super::record::{self, HEAD, HEADER, Head, Header};
use crate::sys;

/// Written pages are released from our memory in pieces of this size; the kernel keeps them until they are on the disk.
const RELEASE: usize = 256 << 10;

/// What became of an append.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Appended {
    /// A record whose body has this many bytes.
    Record(usize),
    /// Nothing was to be written.
    Nothing,
    /// More was claimed than there was room for.
    TooLong(usize),
}

/// One open segment.
#[derive(Debug)]
pub(super) struct Segment {
    file: Arc<File>,
    /// Its device and inode.
    inode: (u64, u64),
    map: MmapMut,
    position: usize,
    released: usize,
}

impl Segment {
    /// Creates a file of `size` bytes with all its blocks.
    pub(super) fn create(path: &Path, size: u64) -> io::Result<Segment> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
        let made = allocate(&file, size).and_then(|()| Segment::map(file, size, HEADER));
        if made.is_err() {
            let _ = std::fs::remove_file(path); // or it would take the room that is already short
        }
        made
    }

    /// Opens a file of `size` bytes to append at `position`, where `torn` bytes are zeroed.
    pub(super) fn reopen(path: &Path, size: u64, position: u64, torn: u64) -> io::Result<Segment> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        allocate(&file, size)?; // a copy may have come back with holes
        let place = |at| usize::try_from(at).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge));
        let mut segment = Segment::map(file, size, place(position)?)?;
        let end = place(position.saturating_add(torn))?;
        if let Some(tail) = segment.map.get_mut(segment.position..end) {
            tail.fill(0);
        }
        Ok(segment)
    }

    fn map(file: File, size: u64, position: usize) -> io::Result<Segment> {
        let len = usize::try_from(size).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        // SAFETY: the folder is locked, so no other onset writes to this file, and readers use pread.
        // Someone who cuts the file short is noticed before each append (docs/log-format.md).
        let map = unsafe { MmapOptions::new().len(len).map_mut(&file)? };
        let data = file.metadata()?;
        let inode = (data.dev(), data.ino());
        Ok(Segment { file: Arc::new(file), inode, map, position, released: 0 })
    }

    /// The file, for whoever syncs it.
    pub(super) fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Whether the file still has its size. Asks by lseek(2): once someone asks for a file's times, the kernel keeps them
    /// more exactly, which costs more at each new page.
    pub(super) fn whole(&self) -> bool {
        (&*self.file).seek(SeekFrom::End(0)).is_ok_and(|end| end >= self.map.len() as u64)
    }

    /// Whether `path` still names the file. Costs far more than `whole`: the kernel walks the path.
    pub(super) fn named(&self, path: &Path) -> bool {
        std::fs::symlink_metadata(path).is_ok_and(|there| (there.dev(), there.ino()) == self.inode)
    }

    /// Whether the file has no name left.
    pub(super) fn deleted(&self) -> bool {
        self.file.metadata().is_ok_and(|data| data.nlink() == 0)
    }

    /// The end of the last record.
    pub(super) fn end(&self) -> u64 {
        self.position as u64
    }

    /// Bytes behind the last record.
    pub(super) fn left(&self) -> usize {
        self.map.len().saturating_sub(self.position)
    }

    /// All its bytes.
    pub(super) fn size(&self) -> usize {
        self.map.len()
    }

    /// Writes the header.
    pub(super) fn begin(&mut self, header: &Header) {
        if let Some(place) = self.map.first_chunk_mut() {
            *place = header.bytes();
        }
    }

    /// Lets `fill` write into `reserve` bytes behind the last record, and makes a record of what it wrote.
    pub(super) fn append(
        &mut self,
        id: RecordId,
        reserve: usize,
        fill: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) -> Appended {
        let offset = self.position;
        let Some((head, rest)) = self.map.get_mut(offset..).and_then(<[u8]>::split_first_chunk_mut::<HEAD>)
        else {
            return Appended::Nothing;
        };
        let room = reserve.min(rest.len());
        let Some(used) = rest.get_mut(..room).and_then(fill) else { return Appended::Nothing };
        let Some(body) = rest.get(..used.min(room)).filter(|body| body.len() == used) else {
            return Appended::TooLong(used);
        };
        let Some(bytes) = Head::new(id, body).bytes(offset as u64) else { return Appended::TooLong(used) };
        fence(Ordering::Release); // whoever sees the head sees the body
        *head = bytes;
        self.position = offset.saturating_add(record::footprint(used)).min(self.map.len());
        self.release();
        Appended::Record(used)
    }

    /// Releases written pages, so that the agent's memory does not grow with the segment.
    fn release(&mut self) {
        if self.position - self.released < RELEASE {
            return;
        }
        let end = self.position / RELEASE * RELEASE;
        // SAFETY: the mapping is shared and of a file: the bytes stay in the page cache, and no
        // reference into the mapping is alive.
        let done = unsafe {
            self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, self.released, end - self.released)
        };
        let _ = done; // an advice: the pages stay ours for longer, that is all
        self.released = end;
    }
}

/// Allocates all blocks of the file; writes zeros where the filesystem has no fallocate(2).
fn allocate(file: &File, size: u64) -> io::Result<()> {
    match sys::fallocate(file, size) {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            let zeros = [0; 4096];
            let mut at = file.metadata()?.len();
            (&*file).seek(SeekFrom::Start(at))?;
            while at < size {
                let len = usize::try_from(size - at).unwrap_or(zeros.len()).min(zeros.len());
                (&*file).write_all(&zeros[..len])?;
                at += len as u64;
            }
            Ok(())
        }
        other => other,
    }
}

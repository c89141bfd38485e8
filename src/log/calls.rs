//! The system calls of the log that std lacks.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// Random bytes from the kernel (getrandom(2)).
pub(super) fn random() -> io::Result<[u8; 8]> {
    let mut bytes = [0; 8];
    // SAFETY: the pointer and the length are those of `bytes`.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    match usize::try_from(got) {
        Ok(got) if got == bytes.len() => Ok(bytes), // up to 256 bytes come whole: getrandom(2)
        _ => Err(io::Error::last_os_error()),
    }
}

/// Syncs the file's bytes to the disk (fdatasync(2)).
pub(super) fn sync_data(file: &File) -> io::Result<()> {
    sync(file, File::sync_data)
}

/// Syncs a file or a directory to the disk, its names included (fsync(2)).
pub(super) fn sync_all(file: &File) -> io::Result<()> {
    sync(file, File::sync_all)
}

#[cfg(not(test))]
fn sync(file: &File, sync: fn(&File) -> io::Result<()>) -> io::Result<()> {
    sync(file)
}

/// Tests play a disk whose power fails: it must know of every sync.
#[cfg(test)]
use super::tests::power::watch as sync;

/// The kernel forgets pages by this size, or larger ones.
const PAGE: usize = 4096;

/// Makes the pages of the first `end` bytes dirty again. Once a sync has failed, the kernel takes
/// the pages that it could not write for clean: the next sync would be well without writing them
/// (see fsync(2)). Nobody may write these bytes meanwhile; those behind them may change.
pub(super) fn rewrite(file: &File, end: u64) -> io::Result<()> {
    for offset in (0..end).step_by(PAGE) {
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset)?;
        file.write_all_at(&byte, offset)?;
    }
    #[cfg(test)]
    super::tests::power::rewritten(file, end);
    Ok(())
}

/// The range of the file's next data at or behind `offset`; `None`: from there on it is a hole
/// (SEEK_DATA and SEEK_HOLE in lseek(2)). A filesystem that knows no holes says that all is data.
pub(super) fn next_data(file: &File, offset: u64) -> io::Result<Option<Range<u64>>> {
    let Some(start) = seek(file, offset, libc::SEEK_DATA)? else { return Ok(None) };
    Ok(seek(file, start, libc::SEEK_HOLE)?.map(|end| start..end))
}

fn seek(file: &File, offset: u64, whence: libc::c_int) -> io::Result<Option<u64>> {
    let Ok(from) = libc::off_t::try_from(offset) else { return Ok(None) };
    // SAFETY: takes no pointers. It moves the file's cursor, which pread(2) does not use.
    let found = unsafe { libc::lseek(file.as_raw_fd(), from, whence) };
    match u64::try_from(found) {
        Ok(found) => Ok(Some(found)),
        Err(_) => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ENXIO) => Ok(None),
            error if error.raw_os_error() == Some(libc::EINVAL) => {
                Ok(Some(if whence == libc::SEEK_DATA { offset } else { u64::MAX }))
            }
            error => Err(error),
        },
    }
}

/// Opens a segment to read it, without read-ahead (posix_fadvise(2)): that would fill the empty
/// rest of the segment with zeros in memory, and what is in memory is no hole any more.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let file = File::open(path)?;
    // SAFETY: takes no pointers. It is an advice: without it reading only costs more.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_RANDOM) };
    Ok(file)
}

//! The system calls of the log that std lacks.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

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

/// Where the file's next data begins, at `offset` or behind it; `None`: from there on it is a hole
/// (SEEK_DATA in lseek(2)). A filesystem that does not know its holes says that all is data.
pub(super) fn next_data(file: &File, offset: u64) -> io::Result<Option<u64>> {
    let Ok(from) = libc::off_t::try_from(offset) else { return Ok(None) };
    // SAFETY: takes no pointers. It moves the file's cursor, which pread(2) does not use.
    let found = unsafe { libc::lseek(file.as_raw_fd(), from, libc::SEEK_DATA) };
    match u64::try_from(found) {
        Ok(found) => Ok(Some(found)),
        Err(_) => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ENXIO) => Ok(None),
            error if error.raw_os_error() == Some(libc::EINVAL) => Ok(Some(offset)),
            error => Err(error),
        },
    }
}

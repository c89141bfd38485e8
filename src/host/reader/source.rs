//! One file that is read again and again: opened once, read from its start into a buffer that all
//! share. A file that is not there is no fault: controllers may be off and containers go.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use super::Faults;
use crate::host::calls::Folder;

/// /proc/stat of the largest hosts is of 200 KiB; pages that are never written cost nothing.
const TEXT_MAX: usize = 256 << 10;

/// What all reading shares.
#[derive(Debug)]
pub(super) struct Io {
    text: Vec<u8>,
    path: Vec<u8>,
    /// How many files may still be kept open; past it, files are opened for each reading.
    pub(super) spare: u64,
    /// One was not kept open for want of room.
    pub(super) refused: bool,
    pub(super) faults: Faults,
}

impl Io {
    pub(super) fn new(open_files: u64) -> Io {
        let path = Vec::with_capacity(usize::try_from(libc::PATH_MAX).unwrap_or(4096));
        Io { text: vec![0; TEXT_MAX], path, spare: open_files, refused: false, faults: Faults::default() }
    }

    /// A path for the kernel: these parts in one, or the folder itself where there are none.
    pub(super) fn path(&mut self, parts: &[&[u8]]) -> Option<&CStr> {
        self.path.clear();
        let length = parts.iter().map(|part| part.len()).sum::<usize>();
        if length >= self.path.capacity() {
            return None;
        }
        for part in parts {
            self.path.extend_from_slice(part);
        }
        if self.path.is_empty() {
            self.path.push(b'.');
        }
        self.path.push(0);
        CStr::from_bytes_with_nul(&self.path).ok()
    }
}

/// Where a source is.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    /// In which hierarchy; `None`: this host does not have that hierarchy.
    pub(super) folder: Option<&'a Folder>,
    /// The cgroup's path in it.
    pub(super) path: &'a [u8],
    /// Whether a file that was not there is looked for again.
    pub(super) again: bool,
    /// Whether the file is kept open for the next reading, if there is room.
    pub(super) keep: bool,
}

/// The file.
#[derive(Debug, Default)]
pub(super) enum Source {
    /// Not opened yet, or opened for each reading.
    #[default]
    Closed,
    /// Kept open.
    Open(File),
    /// Not there, or not for us.
    Missing,
}

impl Source {
    /// Reads the file at once, as cgroup files are to be read. `None`: it is not there, or is
    /// broken, which is counted.
    pub(super) fn read<T>(
        &mut self,
        place: Place<'_>,
        name: &str,
        io: &mut Io,
        parse: impl FnOnce(&[u8]) -> Option<T>,
    ) -> Option<T> {
        let result = self.with_file(place, name, io, |file, text| file.read_at(text, 0))?;
        io.parsed(result, parse)
    }

    /// Reads the file to its end, which lists in /proc give only piece by piece.
    pub(super) fn read_on<T>(
        &mut self,
        folder: &Folder,
        name: &str,
        io: &mut Io,
        parse: impl FnOnce(&[u8]) -> Option<T>,
    ) -> Option<T> {
        let place = Place { folder: Some(folder), path: b"", again: true, keep: true };
        let result = self.with_file(place, name, io, |file, text| {
            let mut length = 0;
            while let Some(room) = text.get_mut(length..).filter(|room| !room.is_empty()) {
                match file.read_at(room, u64::try_from(length).unwrap_or(u64::MAX))? {
                    0 => break,
                    got => length += got,
                }
            }
            Ok(length)
        });
        if result.is_none() && matches!(self, Source::Missing) {
            io.faults.unreadable += 1;
        }
        io.parsed(result?, parse)
    }

    /// Lets go of an open file, which is opened again for the next reading.
    pub(super) fn rest(&mut self, io: &mut Io) {
        if let Source::Open(_) = self {
            io.spare += 1;
            *self = Source::Closed;
        }
    }

    /// Closes it; another file of the same name may be opened later.
    pub(super) fn close(&mut self, io: &mut Io) {
        self.rest(io);
        *self = Source::Closed;
    }

    fn with_file(
        &mut self,
        place: Place<'_>,
        name: &str,
        io: &mut Io,
        read: impl FnOnce(&File, &mut [u8]) -> io::Result<usize>,
    ) -> Option<usize> {
        if matches!(self, Source::Missing) && !place.again {
            return None;
        }
        let opened = match self {
            Source::Open(_) => None,
            _ => Some(self.opened(place, name, io)?),
        };
        let file = match (&*self, &opened) {
            (Source::Open(file), _) | (_, Some(file)) => file,
            _ => return None,
        };
        let result = read(file, &mut io.text);
        match result {
            Ok(length) => {
                match opened {
                    Some(file) if place.keep => self.keep(file, io),
                    Some(_) => *self = Source::Closed,
                    None => {}
                }
                Some(length)
            }
            Err(error) => {
                self.close(io);
                *self = Source::Missing;
                if !is_gone(&error) {
                    io.faults.unreadable += 1;
                }
                None
            }
        }
    }

    fn opened(&mut self, place: Place<'_>, name: &str, io: &mut Io) -> Option<File> {
        let below = place.path.strip_prefix(b"/").unwrap_or(place.path);
        let separator: &[u8] = if below.is_empty() { b"" } else { b"/" };
        let path = io.path(&[below, separator, name.as_bytes()])?;
        match place.folder?.file(path) {
            Ok(file) => Some(file),
            Err(error) => {
                if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) {
                    io.spare = 0;
                    io.faults.unreadable += 1;
                } else {
                    *self = Source::Missing;
                    io.faults.unreadable += u64::from(!is_gone(&error));
                }
                None
            }
        }
    }

    fn keep(&mut self, file: File, io: &mut Io) {
        *self = match io.spare.checked_sub(1) {
            Some(spare) => {
                io.spare = spare;
                Source::Open(file)
            }
            None => {
                io.refused = true;
                Source::Closed
            }
        };
    }
}

impl Io {
    fn parsed<T>(&mut self, length: usize, parse: impl FnOnce(&[u8]) -> Option<T>) -> Option<T> {
        let mut text = self.text.get(..length).unwrap_or_default();
        if length == self.text.len() {
            // It is longer than the buffer: its last line is cut, and half a number is a lie.
            let whole = text.iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
            text = text.get(..whole).unwrap_or_default();
        }
        let value = parse(text);
        self.faults.unparsable += u64::from(value.is_none());
        value
    }
}

/// The file, or the cgroup under an open file, is not there (any more).
pub(super) fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV | libc::ENOTDIR | libc::EOPNOTSUPP))
}

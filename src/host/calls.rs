//! The file calls that std makes only by allocating, or not at all: openat, fstatat, getdents64
//! and inotify. The only unsafe code of this folder; what the kernel writes is read as bytes.

use std::ffi::CStr;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::containers::claim::Access;

/// What a watched folder tells of: folders in it that come and go.
const WATCHED: u32 = libc::IN_CREATE
    | libc::IN_DELETE
    | libc::IN_MOVED_FROM
    | libc::IN_MOVED_TO
    | libc::IN_ONLYDIR
    | libc::IN_DONT_FOLLOW;

fn owned(result: libc::c_int) -> io::Result<OwnedFd> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(result) })
}

/// An open folder. Paths in it are relative.
#[derive(Debug)]
pub(crate) struct Folder(OwnedFd);

impl Folder {
    pub(crate) fn open(path: &Path) -> io::Result<Folder> {
        let file = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(path)?;
        Ok(Folder(file.into()))
    }

    pub(crate) fn file(&self, path: &CStr) -> io::Result<File> {
        self.open_at(path, libc::O_RDONLY).map(File::from)
    }

    /// Names a folder below without opening it for reading.
    pub(crate) fn handle(&self, path: &CStr) -> io::Result<OwnedFd> {
        self.open_at(path, libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW)
    }

    pub(crate) fn folder(&self, path: &CStr) -> io::Result<Folder> {
        self.open_at(path, libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW).map(Folder)
    }

    fn open_at(&self, path: &CStr, flags: libc::c_int) -> io::Result<OwnedFd> {
        // SAFETY: the path ends with a NUL and outlives the call.
        owned(unsafe { libc::openat(self.0.as_raw_fd(), path.as_ptr(), flags | libc::O_CLOEXEC) })
    }

    /// The inode of a folder in it; `None` if it is something else.
    pub(crate) fn inode(&self, path: &CStr) -> io::Result<Option<u64>> {
        Ok(self.about(path)?.map(|about| about.inode))
    }

    /// What is known of a folder in it; `None` if it is something else.
    pub(crate) fn about(&self, path: &CStr) -> io::Result<Option<About>> {
        // SAFETY: an all-zero stat is a valid value for the kernel to overwrite.
        let mut stat: libc::stat = unsafe { std::mem::zeroed() };
        // SAFETY: the path ends with a NUL, `stat` is ours, and both outlive the call.
        let result = unsafe {
            libc::fstatat(self.0.as_raw_fd(), path.as_ptr(), &raw mut stat, libc::AT_SYMLINK_NOFOLLOW)
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        // A folder's links are its name, its `.`, and the `..` of each folder in it; or 1 where they
        // are not counted.
        let access = Access { owner: stat.st_uid, group: stat.st_gid, mode: stat.st_mode };
        let about = About { inode: stat.st_ino, access, has_folders: stat.st_nlink != 2 };
        Ok((stat.st_mode & libc::S_IFMT == libc::S_IFDIR).then_some(about))
    }

    /// The next of its entries, as many as fit; for `entries` to read. Empty: there are no more.
    pub(crate) fn list<'b>(&self, buffer: &'b mut [u8]) -> io::Result<&'b [u8]> {
        // SAFETY: the buffer is ours for as many bytes as the call is told.
        let got = unsafe {
            libc::syscall(libc::SYS_getdents64, self.0.as_raw_fd(), buffer.as_mut_ptr(), buffer.len())
        };
        let got = usize::try_from(got).map_err(|_| io::Error::last_os_error())?;
        Ok(buffer.get(..got).unwrap_or_default())
    }
}

/// What is known of a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct About {
    pub(crate) inode: u64,
    /// Whose it is, and who else may make folders in it.
    pub(crate) access: Access,
    /// Whether there are folders in it; true where the filesystem does not tell.
    pub(crate) has_folders: bool,
}

/// The names of those entries (linux_dirent64) that may be folders, but for `.` and `..`.
pub(crate) fn entries(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        // Inode and offset of 8 bytes each, length of 2, type of 1, then the name and a NUL.
        let length: [u8; 2] = *bytes.get(16..)?.first_chunk()?;
        let (entry, rest) = bytes.split_at_checked(usize::from(u16::from_ne_bytes(length)))?;
        bytes = rest;
        let kind = entry.get(18)?;
        let name = until_nul(entry.get(19..)?);
        let folder = matches!(*kind, libc::DT_DIR | libc::DT_UNKNOWN);
        Some((folder && name != b"." && name != b".." && !name.is_empty()).then_some(name))
    })
    .flatten()
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Watches on folders (inotify(7)).
#[derive(Debug)]
pub(crate) struct Watches(File);

impl Watches {
    pub(crate) fn new() -> io::Result<Watches> {
        // SAFETY: takes no pointers.
        let fd = owned(unsafe { libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK) })?;
        Ok(Watches(File::from(fd)))
    }

    /// Watches a folder. The same one again gives the same number.
    pub(crate) fn add(&self, path: &CStr) -> io::Result<i32> {
        // SAFETY: the path ends with a NUL and outlives the call.
        let watch = unsafe { libc::inotify_add_watch(self.0.as_raw_fd(), path.as_ptr(), WATCHED) };
        if watch < 0 { Err(io::Error::last_os_error()) } else { Ok(watch) }
    }

    /// Ends a watch. A folder that went away ends its own in most filesystems, but not in
    /// cgroupfs: an error says no more than that.
    pub(crate) fn remove(&self, watch: i32) {
        // SAFETY: takes no pointers.
        unsafe { libc::inotify_rm_watch(self.0.as_raw_fd(), watch) };
    }

    /// The next events, as many as fit; for `events` to read. Empty: there are none for now.
    pub(crate) fn read<'b>(&self, buffer: &'b mut [u8]) -> io::Result<&'b [u8]> {
        match (&self.0).read(buffer) {
            Ok(got) => Ok(buffer.get(..got).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(&[]),
            Err(error) => Err(error),
        }
    }
}

impl AsRawFd for Watches {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// One event (struct inotify_event).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event<'b> {
    /// Whose watch; -1 of none.
    pub(crate) watch: i32,
    /// What happened.
    pub(crate) what: What,
    /// To which entry of the watched folder.
    pub(crate) name: &'b [u8],
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// A folder came, or was moved here.
    Came,
    /// A folder went, or was moved away.
    Went,
    /// The watch is over.
    Ended,
    /// Events were lost: only a look at everything can tell what happened.
    Lost,
    /// Nothing that matters here.
    Other,
}

/// The events in these bytes.
pub(crate) fn events(mut bytes: &[u8]) -> impl Iterator<Item = Event<'_>> {
    std::iter::from_fn(move || {
        let (watch, rest) = bytes.split_first_chunk()?;
        let (mask, rest) = rest.split_first_chunk()?;
        let (_cookie, rest) = rest.split_first_chunk::<4>()?;
        let (length, rest) = rest.split_first_chunk()?;
        let length = usize::try_from(u32::from_ne_bytes(*length)).ok()?;
        let (name, rest) = rest.split_at_checked(length)?;
        bytes = rest;
        let what = what(u32::from_ne_bytes(*mask));
        Some(Event { watch: i32::from_ne_bytes(*watch), what, name: until_nul(name) })
    })
}

fn what(mask: u32) -> What {
    let has = |bits: u32| mask & bits != 0;
    if has(libc::IN_Q_OVERFLOW) {
        What::Lost
    } else if has(libc::IN_IGNORED) {
        What::Ended
    } else if !has(libc::IN_ISDIR) {
        What::Other
    } else if has(libc::IN_CREATE | libc::IN_MOVED_TO) {
        What::Came
    } else if has(libc::IN_DELETE | libc::IN_MOVED_FROM) {
        What::Went
    } else {
        What::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(watch: i32, mask: u32, name: &[u8]) -> Vec<u8> {
        let mut bytes = watch.to_ne_bytes().to_vec();
        bytes.extend(mask.to_ne_bytes());
        bytes.extend(0_u32.to_ne_bytes());
        bytes.extend(16_u32.to_ne_bytes());
        bytes.extend(name);
        bytes.resize(32, 0);
        bytes
    }

    #[test]
    fn events_are_told_apart() {
        let mut bytes = event(3, libc::IN_CREATE | libc::IN_ISDIR, b"pod");
        bytes.extend(event(3, libc::IN_DELETE, b"file"));
        bytes.extend(event(-1, libc::IN_Q_OVERFLOW, b""));
        bytes.extend(event(3, libc::IN_IGNORED, b""));
        let seen: Vec<_> = events(&bytes).map(|event| (event.watch, event.what, event.name)).collect();
        assert_eq!(
            seen,
            [
                (3, What::Came, b"pod".as_slice()),
                (3, What::Other, b"file"),
                (-1, What::Lost, b""),
                (3, What::Ended, b""),
            ]
        );
    }

    #[test]
    fn cut_bytes_end_the_events_and_the_entries() {
        let whole = event(3, libc::IN_CREATE | libc::IN_ISDIR, b"pod");
        for cut in 0..whole.len() {
            assert_eq!(events(&whole[..cut]).count(), 0, "{cut}");
        }
        let mut entry = [7_u8; 24];
        for length in 0..=255_u16 {
            entry[16..18].copy_from_slice(&length.to_ne_bytes());
            assert!(entries(&entry).count() <= 1, "a length of {length} ends it");
        }
    }

    #[test]
    fn a_folders_entries_are_listed() {
        let here = Folder::open(Path::new(env!("CARGO_MANIFEST_DIR"))).expect("it is there");
        let mut buffer = vec![0; 4096];
        let mut names = Vec::new();
        loop {
            let bytes = here.list(&mut buffer).expect("a listing");
            if bytes.is_empty() {
                break;
            }
            names.extend(entries(bytes).map(<[u8]>::to_vec));
        }
        assert!(names.contains(&b"src".to_vec()) && !names.contains(&b"Cargo.toml".to_vec()));
        assert!(!names.contains(&b"..".to_vec()));
        assert!(here.about(c"src").expect("it is there").is_some_and(|it| it.has_folders));
        assert_eq!(here.inode(c"Cargo.toml").expect("it is there"), None);
    }
}

//! A process's address space, out of /proc/PID/maps: which file's which bytes run where.

use std::ffi::OsStr;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::lines::hex;

/// One executable mapping.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mapping<'t> {
    /// The addresses.
    pub(super) range: Range<u64>,
    /// Where in the file they begin.
    pub(super) offset: u64,
    /// Device (as text) and inode tell files apart; an inode of 0 is no file.
    pub(super) file: (&'t [u8], u64),
    /// A path, `[vdso]` or nothing.
    pub(super) name: &'t [u8],
}

impl<'t> Mapping<'t> {
    /// Reads a line. `None` if it is not executable, or no such line.
    pub(super) fn parse(line: &'t [u8]) -> Option<Mapping<'t>> {
        let mut fields = line.splitn(6, |byte| *byte == b' ');
        let range = fields.next()?;
        let dash = range.iter().position(|byte| *byte == b'-')?;
        let range = hex(range.get(..dash)?)?..hex(range.get(dash + 1..)?)?;
        let [_, _, b'x', _] = fields.next()? else { return None };
        let offset = hex(fields.next()?)?;
        let device = fields.next()?;
        let inode = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
        let name = fields.next().unwrap_or_default().trim_ascii_start();
        Some(Mapping { range, offset, file: (device, inode), name })
    }

    /// The path within the process's root, if it still has one.
    pub(super) fn path(&self) -> Option<&'t Path> {
        (self.name.starts_with(b"/") && !self.name.ends_with(DELETED))
            .then(|| Path::new(OsStr::from_bytes(self.name)))
    }

    /// Whether the kernel made this file for memory alone: it is on no disk, and was deleted at once.
    pub(super) fn is_memory(&self) -> bool {
        self.file.0.starts_with(b"00:")
            && self.name.ends_with(DELETED)
            && MEMORY.iter().any(|start| self.name.starts_with(start))
    }

    /// The last part of the name, as it was before the file was deleted.
    pub(super) fn basename(&self) -> &'t [u8] {
        let name = self.name.strip_suffix(DELETED).unwrap_or(self.name);
        name.rsplit(|byte| *byte == b'/').next().unwrap_or(name)
    }
}

const DELETED: &[u8] = b" (deleted)";

/// How the kernel calls such files: memfd_create(2), SysV memory, shared anonymous and huge pages.
const MEMORY: [&[u8]; 4] = [b"/memfd:", b"/SYSV", b"/dev/zero", b"/anon_hugepage"];

/// The process's id in its own pid namespace, as its perf map is named, out of /proc/PID/status.
pub(super) fn namespace_pid(status: &str) -> Option<u32> {
    let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    ids.split_ascii_whitespace().next_back()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_executable_mappings_are_parsed() {
        let line = Mapping::parse(b"7f1000-7f2000 r-xp 00028000 fe:00 1234       /usr/lib/my lib.so.6")
            .expect("code");
        assert_eq!(line.range, 0x7f_1000..0x7f_2000);
        assert_eq!((line.offset, line.file), (0x28000, (b"fe:00".as_slice(), 1234)));
        assert_eq!(line.basename(), b"my lib.so.6");
        assert_eq!(line.path(), Some(Path::new("/usr/lib/my lib.so.6")));
        assert_eq!(Mapping::parse(b"7f1000-7f2000 rw-p 00028000 fe:00 1234       /usr/lib/libc.so.6"), None);
    }

    #[test]
    fn a_deleted_file_keeps_its_name_but_has_no_path() {
        let line = Mapping::parse(b"1000-2000 r-xp 00000000 fe:00 7 /tmp/spin (deleted)").expect("code");
        assert_eq!((line.basename(), line.path()), (b"spin".as_slice(), None));
    }

    #[test]
    fn memory_without_a_file_has_no_inode() {
        let jit = Mapping::parse(b"1000-2000 rwxp 00000000 00:00 0 ").expect("code");
        assert_eq!((jit.file.1, jit.name), (0, b"".as_slice()));
        let vdso = Mapping::parse(b"7ffc1000-7ffc2000 r-xp 00000000 00:00 0                          [vdso]")
            .expect("code");
        assert_eq!((vdso.basename(), vdso.path()), (b"[vdso]".as_slice(), None));
    }

    #[test]
    fn a_memory_file_of_the_kernel_is_recognised_by_its_name() {
        let is = |text: &str| Mapping::parse(text.as_bytes()).expect("code").is_memory();
        assert!(is("1000-2000 rwxs 00000000 00:01 7 /memfd:doublemapper (deleted)"));
        assert!(is("1000-2000 rwxs 00000000 00:01 7 /dev/zero (deleted)"));
        assert!(!is("1000-2000 r-xp 00000000 fe:00 7 /memfd:libx.so (deleted)"), "it is on a disk");
        assert!(!is("1000-2000 r-xp 00000000 00:21 7 /usr/lib/libx.so (deleted)"));
    }

    #[test]
    fn broken_lines_are_no_mappings() {
        for line in [
            "",
            "-",
            "1000 r-xp 0 0:0 1",
            "1000-zz r-xp 0 0:0 1",
            "1000-2000 rx 0 0:0 1",
            "1000-2000 r-xp 0 0:0 x",
        ] {
            assert_eq!(Mapping::parse(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn the_perf_map_is_named_by_the_innermost_namespaces_pid() {
        assert_eq!(namespace_pid("Name:\tx\nNSpid:\t4711\t12\t1\nNSsid:\t9\n"), Some(1));
        assert_eq!(namespace_pid("NSpid:\t4711\n"), Some(4711));
        assert_eq!(namespace_pid("NSpid:\n"), None);
        assert_eq!(namespace_pid("Name:\tNSpid: 3\n"), None);
    }
}

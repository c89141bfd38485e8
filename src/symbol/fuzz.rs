//! The parsers of foreign files that names are made of, as fuzz targets.

use std::fs::File;
use std::hint::black_box;
use std::io::Write as _;
use std::os::fd::{AsRawFd as _, FromRawFd as _};

use super::elf::{self, Elf};
use super::maps::{self, Mapping};
use super::{Layout, kernel, label, perf_map, symtab};

/// Addresses that the corpora's tables hold, and such that none does; sorted.
const ADDRESSES: [u64; 8] =
    [0, 1, 0x1000, 0x40_1000, 0x7f00_0000_0000, 0xffff_ffff_8100_0000, 0xffff_ffff_c000_0000, u64::MAX];

/// The notes of an ELF file.
pub fn elf_note(data: &[u8]) {
    black_box(elf::build_id(data));
}

/// A whole ELF file: its build id, its segments, and the names of some addresses.
pub fn elf_file(data: &[u8]) {
    // SAFETY: the name is a C string; the result is checked before it is owned.
    let fd = unsafe { libc::memfd_create(c"elf".as_ptr(), libc::MFD_CLOEXEC) };
    assert!(fd >= 0, "memfd_create");
    // SAFETY: the kernel just gave us this descriptor and nobody else knows it.
    let mut file = unsafe { File::from_raw_fd(fd) };
    assert!(file.as_raw_fd() == fd && file.write_all(data).is_ok());
    let Some(elf) = Elf::open(&file) else { return };
    black_box(elf.build_id());
    let segments = elf.segments().unwrap_or_default();
    for address in ADDRESSES {
        black_box(elf::address_of(&segments, address));
    }
    assert_eq!(symtab::names(&elf, &ADDRESSES).len(), ADDRESSES.len());
}

/// /proc/kallsyms.
pub fn kallsyms(data: &[u8]) {
    assert_eq!(kernel::names(data, &ADDRESSES).len(), ADDRESSES.len());
}

/// A perf map, as just-in-time compilers write it.
pub fn perf_map(data: &[u8]) {
    assert_eq!(perf_map::names(data, &ADDRESSES).len(), ADDRESSES.len());
}

/// /proc/PID/maps, and /proc/PID/status and stat beside it.
pub fn maps(data: &[u8]) {
    for line in data.split(|byte| *byte == b'\n') {
        if let Some(line) = Mapping::parse(line) {
            black_box((line.path(), line.basename()));
        }
    }
    black_box(Layout::of_stat(data));
    black_box(maps::namespace_pid(&String::from_utf8_lossy(data)));
}

/// A symbol's name.
pub fn label(data: &[u8]) {
    assert!(label::demangled(data).len() <= 4 * data.len().max(256));
    black_box(label::plain(data));
}

//! The few facts of an ELF file that symbols need: headers, segments, sections, build id.
//!
//! Read by pread, never mapped: the file belongs to the process that is looked at, which may
//! truncate it at any moment, and a mapping of it would end us with a SIGBUS.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use super::BuildId;

/// No linker makes more than this of notes; the build id comes early in them.
const NOTES_MAX: u64 = 64 << 10;

const PT_LOAD: u64 = 1;
const PT_NOTE: u64 = 4;
const NT_GNU_BUILD_ID: u32 = 3;
const EXECUTABLE: u64 = 1;

/// An open ELF file, little-endian, of either class.
pub(super) struct Elf<'f> {
    file: &'f File,
    wide: bool,
    header: [u8; 64],
}

/// What a program header says.
pub(super) struct Segment {
    kind: u64,
    executable: bool,
    offset: u64,
    address: u64,
    len: u64,
}

/// What a section header says.
pub(super) struct Section {
    pub(super) kind: u64,
    pub(super) address: u64,
    pub(super) offset: u64,
    pub(super) len: u64,
    /// Of a symbol table: the section with its names.
    pub(super) link: usize,
}

/// One fixed-size entry of a table. Where a field is differs between the 64-bit and the 32-bit class.
#[derive(Clone, Copy)]
pub(super) struct TableEntry<'b> {
    bytes: &'b [u8],
    wide: bool,
}

impl TableEntry<'_> {
    /// A field of `width` bytes in both classes, at `wide` or at `narrow`.
    pub(super) fn field(self, width: usize, wide: usize, narrow: usize) -> Option<u64> {
        let from = if self.wide { wide } else { narrow };
        let field = self.bytes.get(from..from + width)?;
        Some(field.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// A field as wide as an address is.
    pub(super) fn word(self, wide: usize, narrow: usize) -> Option<u64> {
        self.field(if self.wide { 8 } else { 4 }, wide, narrow)
    }
}

impl<'f> Elf<'f> {
    /// Reads the header. `None` if this is no ELF file that runs here.
    pub(super) fn open(file: &'f File) -> Option<Elf<'f>> {
        let mut header = [0; 64];
        file.read_exact_at(&mut header, 0).ok()?;
        let wide = match header {
            [0x7f, b'E', b'L', b'F', 1, 1, ..] => false,
            [0x7f, b'E', b'L', b'F', 2, 1, ..] => true,
            _ => return None,
        };
        Some(Elf { file, wide, header })
    }

    /// The program headers.
    pub(super) fn segments(&self) -> Option<Vec<Segment>> {
        let header = self.entry(&self.header);
        let (at, count) = (header.word(32, 28)?, header.field(2, 56, 44)?);
        self.table(at, count, self.size(56, 32), header.field(2, 54, 42)?, |entry| {
            Some(Segment {
                kind: entry.field(4, 0, 0)?,
                executable: entry.field(4, 4, 24)? & EXECUTABLE != 0,
                offset: entry.word(8, 4)?,
                address: entry.word(16, 8)?,
                len: entry.word(32, 16)?,
            })
        })
    }

    /// The section headers.
    pub(super) fn sections(&self) -> Option<Vec<Section>> {
        let header = self.entry(&self.header);
        let (at, count) = (header.word(40, 32)?, header.field(2, 60, 48)?);
        self.table(at, count, self.size(64, 40), header.field(2, 58, 46)?, |entry| {
            Some(Section {
                kind: entry.field(4, 4, 4)?,
                address: entry.word(16, 12)?,
                offset: entry.word(24, 16)?,
                len: entry.word(32, 20)?,
                link: usize::try_from(entry.field(4, 40, 24)?).ok()?,
            })
        })
    }

    /// The build id in its notes, if the linker gave it one.
    pub(super) fn build_id(&self) -> Option<BuildId> {
        self.segments()?.iter().filter(|segment| segment.kind == PT_NOTE).find_map(|notes| {
            let mut bytes = vec![0; usize::try_from(notes.len.min(NOTES_MAX)).ok()?];
            self.read(&mut bytes, notes.offset)?;
            build_id(&bytes)
        })
    }

    /// Fills `bytes` from the file at `at`.
    pub(super) fn read(&self, bytes: &mut [u8], at: u64) -> Option<()> {
        self.file.read_exact_at(bytes, at).ok()
    }

    /// The text at `at` up to its NUL, of fewer than `max` bytes.
    pub(super) fn text(&self, at: u64, max: usize) -> Option<Vec<u8>> {
        let mut text = vec![0; max];
        let read = self.file.read_at(&mut text, at).ok()?;
        text.truncate(read);
        let end = text.iter().position(|byte| *byte == 0)?;
        text.truncate(end);
        Some(text)
    }

    /// Bytes that are one entry of a table of this file.
    pub(super) fn entry<'b>(&self, bytes: &'b [u8]) -> TableEntry<'b> {
        TableEntry { bytes, wide: self.wide }
    }

    /// Which of two sizes is true for this file's class.
    pub(super) fn size(&self, wide: usize, narrow: usize) -> usize {
        if self.wide { wide } else { narrow }
    }

    /// `count` is 16 bits wide in the file, so a table is 4 MiB at most.
    fn table<T>(
        &self,
        at: u64,
        count: u64,
        size: usize,
        stated: u64,
        read: impl Fn(TableEntry<'_>) -> Option<T>,
    ) -> Option<Vec<T>> {
        if stated != size as u64 {
            return None;
        }
        let mut bytes = vec![0; usize::try_from(count).ok()? * size];
        self.read(&mut bytes, at)?;
        bytes.chunks_exact(size).map(|chunk| read(self.entry(chunk))).collect()
    }
}

/// The virtual address that an offset in the file is loaded at, before relocation.
pub(super) fn address_of(segments: &[Segment], offset: u64) -> Option<u64> {
    let within = |segment: &&Segment| {
        segment.kind == PT_LOAD && offset.checked_sub(segment.offset).is_some_and(|into| into < segment.len)
    };
    let mut candidates = segments.iter().filter(within);
    let first = candidates.next()?;
    // Segments may share a page of the file; code runs from the one that may be executed.
    let holds = if first.executable { first } else { candidates.find(|s| s.executable).unwrap_or(first) };
    (offset - holds.offset).checked_add(holds.address)
}

/// The build id among ELF notes, filled up with zeros as the kernel does.
pub(super) fn build_id(mut notes: &[u8]) -> Option<BuildId> {
    loop {
        let (header, rest) = notes.split_first_chunk::<12>()?;
        let word = |at: usize| header.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
        let (name_len, len, kind) = (word(0)?, word(4)?, word(8)?);
        let (name, rest) = padded(rest, name_len)?;
        let (desc, rest) = padded(rest, len)?;
        if kind == NT_GNU_BUILD_ID && name == b"GNU\0" {
            let mut id = BuildId([0; 20]);
            id.0.get_mut(..desc.len()).filter(|id| !id.is_empty())?.copy_from_slice(desc);
            return Some(id);
        }
        notes = rest;
    }
}

/// `len` bytes, and what follows their padding to four.
fn padded(bytes: &[u8], len: u32) -> Option<(&[u8], &[u8])> {
    let len = usize::try_from(len).ok()?;
    let (field, _) = bytes.split_at_checked(len)?;
    let whole = len.checked_next_multiple_of(4)?.min(bytes.len());
    Some((field, bytes.get(whole..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_build_id_is_found_among_other_notes() {
        let id = build_id(include_bytes!("../../fuzz/corpus/elf_note/build_id")).expect("an id");
        assert_eq!(id.0[..3], [1, 2, 3]);
        assert_eq!(id.0[19], 20);
    }

    #[test]
    fn a_short_build_id_is_padded_with_zeros_as_in_the_kernel() {
        let id = build_id(include_bytes!("../../fuzz/corpus/elf_note/short_id")).expect("an id");
        assert_eq!(id.0[..9], [0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0]);
    }

    #[test]
    fn notes_with_a_wrong_length_have_no_build_id() {
        for notes in [
            include_bytes!("../../fuzz/corpus/elf_note/hostile").as_slice(),
            include_bytes!("../../fuzz/corpus/elf_note/long_id"),
            include_bytes!("../../fuzz/corpus/elf_note/cut"),
            b"",
        ] {
            assert_eq!(build_id(notes), None, "{notes:?}");
        }
        let whole = include_bytes!("../../fuzz/corpus/elf_note/build_id");
        for len in 0..whole.len() {
            assert_eq!(build_id(&whole[..len]), None, "cut to {len}");
        }
    }

    #[test]
    fn a_file_offset_maps_to_the_address_of_its_executable_segment() {
        let load =
            |executable, offset, address, len| Segment { kind: PT_LOAD, executable, offset, address, len };
        let segments = [
            load(false, 0, 0x400_000, 0x1100),
            load(true, 0x1000, 0x402_000, 0x500),
            load(true, 0x2000, u64::MAX - 1, u64::MAX),
        ];
        assert_eq!(address_of(&segments, 0x10), Some(0x400_010));
        assert_eq!(address_of(&segments, 0x1010), Some(0x402_010));
        assert_eq!(address_of(&segments, 0x1500), None);
        assert_eq!(address_of(&segments, 0x2010), None, "past the end of all addresses");
    }
}

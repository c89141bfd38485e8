//! Names of addresses in an ELF file, out of one pass over its symbol tables that keeps nothing
//! but the best answer for each address: a browser's table would be 40 MB.

use super::elf::{Elf, Section};
use super::label;

/// A table of more symbols is not read: the largest programs have about a million.
const SYMBOLS_MAX: u64 = 4 << 20;

/// Steps that one file may cost, so that symbols which all cover everything cannot hold us up.
const WORK_MAX: usize = 1 << 26;

/// How many symbols are read at a time.
const CHUNK: usize = 2048;

/// A name that does not end within this is no name.
const NAME_MAX: usize = 4096;

const SHT_SYMTAB: u64 = 2;
const SHT_DYNSYM: u64 = 11;
const STT_NOTYPE: u64 = 0;
const STT_FUNC: u64 = 2;
const STT_GNU_IFUNC: u64 = 10;

/// How well a symbol answers: one that states its size before one that does not, then the
/// nearest, then a function before a mere label, then a global name before a local one.
type Rank = (bool, u64, bool, bool);

struct Symbol {
    rank: Rank,
    /// Past its last byte.
    end: u64,
    /// Where in the file its name begins.
    name: u64,
}

/// The names of virtual `addresses`, which are sorted.
pub(super) fn names(elf: &Elf<'_>, addresses: &[u64]) -> Vec<Option<Box<str>>> {
    let mut best: Vec<Option<(Rank, u64)>> = vec![None; addresses.len()];
    let sections = elf.sections().unwrap_or_default();
    let mut work = 0;
    for table in &sections {
        // What was read of a table before it broke off still names what it names.
        let _ = each_symbol(elf, table, &sections, |symbol| {
            let (_, start, ..) = symbol.rank;
            let from = addresses.partition_point(|address| *address < start);
            let to = addresses.partition_point(|address| *address < symbol.end);
            work += 1 + to.saturating_sub(from);
            for slot in best.get_mut(from..to).unwrap_or_default() {
                if slot.is_none_or(|(rank, _)| rank < symbol.rank) {
                    *slot = Some((symbol.rank, symbol.name));
                }
            }
            work < WORK_MAX
        });
    }
    let name = |found: Option<(Rank, u64)>| {
        let name = elf.text(found?.1, NAME_MAX).filter(|name| !name.is_empty())?;
        Some(label::demangled(&name))
    };
    best.into_iter().map(name).collect()
}

/// Shows the code symbols of one table to `each`, for as long as that returns true.
fn each_symbol(
    elf: &Elf<'_>,
    table: &Section,
    sections: &[Section],
    mut each: impl FnMut(Symbol) -> bool,
) -> Option<()> {
    if table.kind != SHT_SYMTAB && table.kind != SHT_DYNSYM {
        return None;
    }
    let strings = sections.get(table.link)?;
    let size = elf.size(24, 16);
    let mut left = table.len / (size as u64);
    if left > SYMBOLS_MAX {
        return None;
    }
    let mut at = table.offset;
    let mut chunk = vec![0; CHUNK * size];
    while left > 0 {
        let count = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
        let bytes = chunk.get_mut(..count * size)?;
        elf.read(bytes, at)?;
        for entry in bytes.chunks_exact(size) {
            let entry = elf.entry(entry);
            let start = entry.word(8, 4)?;
            let len = entry.word(16, 8)?;
            let info = entry.field(1, 4, 12)?;
            let section = usize::try_from(entry.field(2, 6, 14)?).ok()?;
            let name = entry.field(4, 0, 0)?;
            let kind = info & 0xf;
            let function = kind == STT_FUNC || kind == STT_GNU_IFUNC;
            // Section 0 is what this file wants from others.
            if section == 0 || name >= strings.len || !(function || kind == STT_NOTYPE) {
                continue;
            }
            let end = match len {
                // The dynamic table leaves out too much for the next symbol to be a bound.
                0 if table.kind == SHT_DYNSYM => start.saturating_add(1),
                0 => sections.get(section).map_or(start, |holds| holds.address.saturating_add(holds.len)),
                len => start.saturating_add(len),
            };
            let rank = (len != 0, start, function, info >> 4 != 0);
            if !each(Symbol { rank, end, name: strings.offset.checked_add(name)? }) {
                return None;
            }
        }
        at = at.checked_add((count * size) as u64)?;
        left -= count as u64;
    }
    Some(())
}

//! Names of just-in-time compiled code, out of the map that its runtime writes for profilers:
//! lines of `START SIZE name` in /tmp/perf-PID.map. The file belongs to the process that is
//! looked at, so nothing in it is trusted.

use std::io::Read;

use super::label;
use super::lines::{each_line, hex};

/// A runtime that wrote more than this does not describe what runs now.
const MAP_MAX: u64 = 64 << 20;

/// Names taken over in all. An honest map gives an address a few, one after the other.
const WORK_MAX: usize = 1 << 20;

/// The names of `addresses`, which are sorted. Where entries overlap, the last one written counts:
/// the runtime has since put other code there.
pub(super) fn names(map: impl Read, addresses: &[u64]) -> Vec<Option<Box<str>>> {
    let mut names = vec![None; addresses.len()];
    let mut work = 0;
    // What was read before an error still names what it names.
    let _ = each_line(map, MAP_MAX, |line| {
        let Some((start, end, name)) = entry(line) else { return };
        let from = addresses.partition_point(|address| *address < start);
        let to = addresses.partition_point(|address| *address < end);
        work += to - from;
        if work <= WORK_MAX {
            for slot in names.get_mut(from..to).unwrap_or_default() {
                *slot = Some(label::plain(name));
            }
        }
    });
    names
}

fn entry(line: &[u8]) -> Option<(u64, u64, &[u8])> {
    let mut fields = line.splitn(3, |byte| *byte == b' ');
    let mut number = || fields.next().and_then(|field| hex(field.strip_prefix(b"0x").unwrap_or(field)));
    let (start, size) = (number()?, number()?);
    let name = fields.next()?.trim_ascii();
    (!name.is_empty()).then_some((start, start.checked_add(size)?, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(map: &[u8], address: u64) -> Option<String> {
        names(map, &[address]).pop().flatten().map(String::from)
    }

    #[test]
    fn an_address_is_named_by_the_perf_map_entry_that_covers_it() {
        let node = include_bytes!("../../fuzz/corpus/perf_map/node");
        for (address, name) in [
            (0x3ef4_14c0, Some("LazyCompile:*fib /app/main.js:1:13")),
            (0x3ef4_14ff, Some("LazyCompile:*fib /app/main.js:1:13")),
            (0x3ef4_1500, None),
            (0x7f00_0010, Some("Builtin:ArrayMap")),
        ] {
            assert_eq!(named(node, address).as_deref(), name, "{address:x}");
        }
    }

    #[test]
    fn the_last_written_of_overlapping_perf_map_entries_wins() {
        let map = b"1000 100 old\n1080 10 inner\n1040 80 new\n";
        assert_eq!(named(map, 0x1000).as_deref(), Some("old"));
        assert_eq!(named(map, 0x1080).as_deref(), Some("new"));
    }

    #[test]
    fn hostile_perf_map_lines_name_nothing() {
        let hostile = include_bytes!("../../fuzz/corpus/perf_map/hostile");
        let names = names(hostile.as_slice(), &[0, 0x1000, 0x2000, u64::MAX - 1, u64::MAX]);
        assert_eq!(names.iter().flatten().map(|name| &**name).collect::<Vec<_>>(), ["sound"]);
    }

    #[test]
    fn a_perf_map_that_keeps_renaming_everything_is_abandoned() {
        let addresses: Vec<u64> = (0..4096).collect();
        let map = b"0 1000 x\n".repeat(WORK_MAX / 4096 + 10);
        assert!(names(map.as_slice(), &addresses).iter().all(Option::is_some));
    }
}

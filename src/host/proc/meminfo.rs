//! /proc/meminfo: the few lines that say how much memory there is and what of it cannot be reclaimed.

use crate::host::text::{decimal, fields, lines};
use crate::host::{Memory, Unreclaimable};

const KEYS: [&[u8]; 7] = [
    b"MemTotal:",
    b"MemAvailable:",
    b"Active(anon):",
    b"Inactive(anon):",
    b"Unevictable:",
    b"AnonPages:",
    b"Shmem:",
];

/// Reads the file. `None` if a line that is needed is missing: a zero would be a lie.
#[must_use]
pub fn parse(text: &[u8]) -> Option<Memory> {
    let mut values = [None; KEYS.len()];
    for line in lines(text) {
        let mut fields = fields(line);
        let name = fields.next();
        if let Some(place) = KEYS.iter().position(|key| Some(*key) == name) {
            // Each number is there once.
            values[place] = Some(decimal(fields.next()?)?.checked_mul(1024)?);
        }
    }
    let [total, available, active, inactive, unevictable, anon, shmem] = values;
    Some(Memory {
        total_bytes: total?,
        available_bytes: available?,
        held: Unreclaimable::of(anon, shmem, unevictable, [active, inactive])?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_separates_anonymous_shared_and_locked_memory() {
        let memory = parse(include_bytes!("../../../fuzz/corpus/meminfo/6.1")).expect("a real file");
        assert_eq!(memory.total_bytes, 16_302_508 * 1024);
        assert_eq!(memory.available_bytes, 9_822_456 * 1024);
        let kib = |kib: u64| kib * 1024;
        let want = Unreclaimable {
            anon_bytes: kib(4_915_432),
            shmem_bytes: Some(kib(412_040)),
            locked_bytes: Some(kib(16_384)),
            all_bytes: kib(302_912 + 5_012_340 + 16_384),
        };
        assert_eq!(memory.held, want);
    }

    #[test]
    fn without_lru_lists_anonymous_and_shared_pages_are_summed() {
        let text = b"MemTotal: 100 kB\nMemAvailable: 50 kB\nAnonPages: 20 kB\nShmem: 7 kB\n";
        let held = parse(text).expect("enough").held;
        assert_eq!((held.all_bytes, held.shmem_bytes, held.locked_bytes), (27 * 1024, Some(7 * 1024), None));
        let held = parse(text.get(..53).expect("longer")).expect("enough").held;
        assert_eq!((held.all_bytes, held.shmem_bytes), (20 * 1024, None));
    }

    #[test]
    fn a_missing_or_overflowing_number_is_refused() {
        let old = include_bytes!("../../../fuzz/corpus/meminfo/no_available");
        assert_eq!(parse(old), None);
        assert_eq!(parse(b"MemTotal: 18446744073709551615 kB\nMemAvailable: 1 kB\nAnonPages: 1 kB\n"), None);
        assert_eq!(parse(b"MemTotal:\nMemAvailable: 1 kB\nAnonPages: 1 kB\n"), None);
        assert_eq!(parse(b"MemTotal: 9 kB\nMemAvailable: 1 kB\nActive(anon): 1 kB\n"), None);
    }
}

//! /proc/meminfo: the few lines that say how much memory there is and how much of it is anonymous.

use crate::host::Memory;
use crate::host::text::keyed;

/// Reads the file. `None` if a line that is needed is missing: a zero would be a lie.
#[must_use]
pub fn parse(text: &[u8]) -> Option<Memory> {
    let bytes = |key: &str| keyed(text, key.as_bytes())?.checked_mul(1024);
    let anon = match (bytes("Active(anon)"), bytes("Inactive(anon)")) {
        (Some(active), Some(inactive)) => active.checked_add(inactive)?,
        // Written by something that stands before the kernel's file, as lxcfs does.
        _ => bytes("AnonPages")?,
    };
    Some(Memory {
        total_bytes: bytes("MemTotal")?,
        available_bytes: bytes("MemAvailable")?,
        anon_bytes: anon,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anonymous_memory_is_the_active_and_the_inactive() {
        let memory = parse(include_bytes!("../../../fuzz/corpus/meminfo/6.1")).expect("a real file");
        assert_eq!(memory.total_bytes, 16_302_508 * 1024);
        assert_eq!(memory.available_bytes, 9_822_456 * 1024);
        assert_eq!(memory.anon_bytes, (302_912 + 5_012_340) * 1024);
    }

    #[test]
    fn without_those_lines_the_anonymous_pages_stand_in() {
        let memory = parse(b"MemTotal: 100 kB\nMemAvailable: 50 kB\nAnonPages: 20 kB\n").expect("enough");
        assert_eq!(memory.anon_bytes, 20 * 1024);
    }

    #[test]
    fn a_missing_or_endless_number_is_no_reading() {
        let old = include_bytes!("../../../fuzz/corpus/meminfo/no_available");
        assert_eq!(parse(old), None);
        assert_eq!(parse(b"MemTotal: 18446744073709551615 kB\nMemAvailable: 1 kB\nAnonPages: 1 kB\n"), None);
        assert_eq!(parse(b"MemTotal:\nMemAvailable: 1 kB\nAnonPages: 1 kB\n"), None);
    }
}

//! Lists of CPUs: `0-3,8`.

use crate::host::text::decimal;

/// How many CPUs a list names. 0 for an empty list: on v1 that is a cpuset nobody set up.
#[must_use]
pub fn count(text: &[u8]) -> Option<u32> {
    let text = text.trim_ascii();
    if text.is_empty() {
        return Some(0);
    }
    text.split(|byte| *byte == b',').try_fold(0_u32, |sum, range| {
        let mut ends = range.splitn(2, |byte| *byte == b'-');
        let first = u32::try_from(decimal(ends.next()?)?).ok()?;
        let last = match ends.next() {
            Some(last) => u32::try_from(decimal(last)?).ok()?,
            None => first,
        };
        sum.checked_add(last.checked_sub(first)?.checked_add(1)?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpuset_ranges_and_single_cpus_are_summed() {
        assert_eq!(count(b"0-1\n"), Some(2));
        assert_eq!(count(b"0-3,8\n"), Some(5));
        assert_eq!(count(b"7"), Some(1));
        assert_eq!(count(b"\n"), Some(0));
        assert_eq!(count(include_bytes!("../../../fuzz/corpus/cpuset/numa")), Some(48));
    }

    #[test]
    fn a_malformed_cpuset_list_is_refused() {
        for bad in ["3-0", "0-", "-1", "0,,1", "a", "0-4294967295,5", "0 1", "0-3:1/2"] {
            assert_eq!(count(bad.as_bytes()), None, "{bad}");
        }
    }
}

//! Memory of a cgroup and everything below it.

use crate::host::text::{keyed, number};

/// v1 says "no limit" by the largest page counter times the page size, which depends on the
/// kernel: all such are far above this, and every machine's memory far below.
const NO_LIMIT: u64 = 1 << 62;

/// A cgroup's own limit; those above it may be lower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// No limit.
    Unlimited,
    /// So many bytes.
    Bytes(u64),
}

/// Anonymous memory out of v1's memory.stat: `total_rss`, which includes the cgroups below.
#[must_use]
pub fn v1_anon(text: &[u8]) -> Option<u64> {
    keyed(text, b"total_rss")
}

/// The lowest limit on the way from the root out of v1's memory.stat: before 5.11 only where
/// use_hierarchy is set, as container runtimes do. `None` if it does not tell.
#[must_use]
pub fn v1_lowest_limit(text: &[u8]) -> Option<Limit> {
    keyed(text, b"hierarchical_memory_limit").map(bytes)
}

/// Anonymous memory out of v2's memory.stat.
#[must_use]
pub fn v2_anon(text: &[u8]) -> Option<u64> {
    keyed(text, b"anon")
}

/// v2's memory.max or v1's memory.limit_in_bytes.
#[must_use]
pub fn limit(text: &[u8]) -> Option<Limit> {
    if text.trim_ascii() == b"max" {
        return Some(Limit::Unlimited);
    }
    number(text).map(bytes)
}

fn bytes(bytes: u64) -> Limit {
    if bytes >= NO_LIMIT { Limit::Unlimited } else { Limit::Bytes(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anonymous_memory_is_told_from_its_namesakes() {
        assert_eq!(v1_anon(include_bytes!("../../../fuzz/corpus/memory_stat/v1-6.18")), Some(50_466_816));
        assert_eq!(v2_anon(include_bytes!("../../../fuzz/corpus/memory_stat/v2-6.1")), Some(41_943_040));
        assert_eq!(v2_anon(b"anon_thp 5\ninactive_anon 7\n"), None);
        assert_eq!(v1_anon(b"rss 5\nrss_huge 7\n"), None);
    }

    #[test]
    fn v1_tells_the_lowest_limit_beside_the_counts() {
        let real = include_bytes!("../../../fuzz/corpus/memory_stat/v1-6.18");
        assert_eq!(v1_lowest_limit(real), Some(Limit::Bytes(64 << 20)));
        assert_eq!(
            v1_lowest_limit(b"hierarchical_memory_limit 9223372036854771712\n"),
            Some(Limit::Unlimited)
        );
        assert_eq!(v1_lowest_limit(b"total_rss 5\n"), None);
    }

    #[test]
    fn every_kernels_way_to_say_no_limit_is_known() {
        for text in ["max\n", "9223372036854771712\n", "9223372036854710272\n", "9223372036854775807\n"] {
            assert_eq!(limit(text.as_bytes()), Some(Limit::Unlimited), "{text}");
        }
        assert_eq!(limit(b"67108864\n"), Some(Limit::Bytes(64 << 20)));
        assert_eq!(limit(b"-1\n"), None);
        assert_eq!(limit(b""), None);
    }
}

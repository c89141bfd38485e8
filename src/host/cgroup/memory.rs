//! Memory of a cgroup and everything below it.

use crate::host::Unreclaimable;
use crate::host::text::{decimal, lines, number};

/// v1 says "no limit" by the largest page counter times the page size, which depends on the
/// kernel: all those numbers are far above this one, and every machine's memory is far below.
const NO_LIMIT: u64 = 1 << 62;

/// A cgroup's own limit; those above it may be lower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// No limit.
    Unlimited,
    /// The limit in bytes.
    Bytes(u64),
}

/// What cannot be reclaimed out of v1's memory.stat, the cgroups below included; and the lowest limit on
/// the way from the root: before 5.11 only where use_hierarchy is set, as container runtimes do. `None`
/// of either if the file does not tell.
#[must_use]
pub fn v1_stat(text: &[u8]) -> (Option<Unreclaimable>, Option<Limit>) {
    let [anon, shmem, active, inactive, locked, limit] = read(text, |name| match name {
        b"total_rss" => Some(0),
        b"total_shmem" => Some(1),
        b"total_active_anon" => Some(2),
        b"total_inactive_anon" => Some(3),
        b"total_unevictable" => Some(4),
        b"hierarchical_memory_limit" => Some(5),
        _ => None,
    });
    (Unreclaimable::of(anon, shmem, locked, [active, inactive]), limit.map(Limit::of))
}

/// What cannot be reclaimed out of v2's memory.stat.
#[must_use]
pub fn v2_stat(text: &[u8]) -> Option<Unreclaimable> {
    let [anon, shmem, active, inactive, locked] = read(text, |name| match name {
        b"anon" => Some(0),
        b"shmem" => Some(1),
        b"active_anon" => Some(2),
        b"inactive_anon" => Some(3),
        b"unevictable" => Some(4),
        _ => None,
    });
    Unreclaimable::of(anon, shmem, locked, [active, inactive])
}

/// The numbers of some lines, each at its place. The file is long and read often: it is walked once, and no
/// further than to the last of them.
fn read<const N: usize>(text: &[u8], place: impl Fn(&[u8]) -> Option<usize>) -> [Option<u64>; N] {
    let (mut values, mut left) = ([None; N], N);
    for line in lines(text) {
        let Some(end) = line.iter().position(|byte| *byte == b' ') else { continue };
        let (name, number) = line.split_at(end);
        if let Some(value) = place(name).and_then(|place| values.get_mut(place)) {
            *value = decimal(number.trim_ascii());
            left -= 1;
            if left == 0 {
                break;
            }
        }
    }
    values
}

/// v2's memory.max or v1's memory.limit_in_bytes.
#[must_use]
pub fn limit(text: &[u8]) -> Option<Limit> {
    if text.trim_ascii() == b"max" {
        return Some(Limit::Unlimited);
    }
    number(text).map(Limit::of)
}

impl Limit {
    /// What the kernel holds as a limit, in bytes.
    #[must_use]
    pub fn of(bytes: u64) -> Limit {
        if bytes >= NO_LIMIT { Limit::Unlimited } else { Limit::Bytes(bytes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v1_and_v2_memory_stat_give_the_same_values() {
        let (v1, _) = v1_stat(include_bytes!("../../../fuzz/corpus/memory_stat/v1-6.18"));
        let want = Unreclaimable {
            anon_bytes: 50_466_816,
            shmem_bytes: Some(0),
            locked_bytes: Some(0),
            all_bytes: 50_458_624 + 8192,
        };
        assert_eq!(v1, Some(want));
        let v2 = v2_stat(include_bytes!("../../../fuzz/corpus/memory_stat/v2-6.1"));
        assert_eq!(v2, Some(Unreclaimable { anon_bytes: 41_943_040, all_bytes: 41_943_040, ..want }));
        let locked = b"anon 10\nshmem 20\ninactive_anon 3\nactive_anon 4\nunevictable 25\n";
        let want =
            Unreclaimable { anon_bytes: 10, shmem_bytes: Some(20), locked_bytes: Some(25), all_bytes: 32 };
        assert_eq!(v2_stat(locked), Some(want), "locked pages are on no other list; 2 are of a file");
        let v1 = b"total_rss 10\ntotal_shmem 20\ntotal_inactive_anon 3\ntotal_active_anon 4\ntotal_unevictable 25\n";
        assert_eq!(v1_stat(v1), (Some(want), None));
    }

    #[test]
    fn a_counter_is_not_confused_with_one_of_a_similar_name() {
        assert_eq!(v2_stat(b"anon_thp 5\ninactive_anon 7\n"), None);
        assert_eq!(v2_stat(b"anon x\n"), None);
        assert_eq!(v2_stat(b"anon\n"), None);
        assert_eq!(v1_stat(b"rss 5\nrss_huge 7\n"), (None, None));
        let twice = v2_stat(b"anon 1\nanon 2\nanon 3\nanon 4\nanon 5\nshmem 9\n");
        assert_eq!(twice.map(|held| held.shmem_bytes), Some(None), "no kernel writes a line twice");
    }

    #[test]
    fn without_lru_lists_anonymous_and_shared_memory_is_the_sum() {
        let held = v2_stat(b"anon 10\nshmem 20\nunevictable 25\n").expect("enough");
        assert_eq!((held.all_bytes, held.locked_bytes), (30, Some(25)));
    }

    #[test]
    fn v1_memory_stat_gives_the_lowest_limit_of_the_hierarchy() {
        let real = include_bytes!("../../../fuzz/corpus/memory_stat/v1-6.18");
        assert_eq!(v1_stat(real).1, Some(Limit::Bytes(64 << 20)));
        let none = b"hierarchical_memory_limit 9223372036854771712\n";
        assert_eq!(v1_stat(none).1, Some(Limit::Unlimited));
        assert_eq!(v1_stat(b"total_rss 5\n").1, None);
    }

    #[test]
    fn every_kernels_notation_for_no_limit_is_parsed() {
        for text in ["max\n", "9223372036854771712\n", "9223372036854710272\n", "9223372036854775807\n"] {
            assert_eq!(limit(text.as_bytes()), Some(Limit::Unlimited), "{text}");
        }
        assert_eq!(limit(b"67108864\n"), Some(Limit::Bytes(64 << 20)));
        assert_eq!(limit(b"-1\n"), None);
        assert_eq!(limit(b""), None);
    }
}

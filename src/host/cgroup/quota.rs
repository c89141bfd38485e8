//! How many cores' worth of time a cgroup may use: v2's cpu.max, v1's cpu.cfs_quota_us over
//! cpu.cfs_period_us.

use crate::host::text::{fields, number};

/// A cgroup's own quota; those above it may be lower.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Quota {
    /// No limit.
    Unlimited,
    /// The quota in cores.
    Cores(f64),
}

/// v2's cpu.max: `max 100000` or `50000 100000`, both in microseconds.
#[must_use]
pub fn v2(text: &[u8]) -> Option<Quota> {
    let mut fields = fields(text.trim_ascii());
    let quota = fields.next()?;
    let period = fields.next()?;
    if quota == b"max" {
        number(period).map(|_| Quota::Unlimited)
    } else {
        cores(number(quota)?, number(period)?)
    }
}

/// v1's cpu.cfs_quota_us: microseconds a period; `None` within is -1, no limit.
#[must_use]
pub fn v1_quota(text: &[u8]) -> Option<Option<u64>> {
    if text.trim_ascii() == b"-1" { Some(None) } else { number(text).map(Some) }
}

/// A quota and its period as cores.
#[must_use]
pub fn cores(quota: u64, period: u64) -> Option<Quota> {
    #[allow(clippy::cast_precision_loss)] // both are far below 2^52 microseconds in anything real
    (period > 0).then(|| Quota::Cores(quota as f64 / period as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v2_has_both_in_one_line() {
        assert_eq!(v2(include_bytes!("../../../fuzz/corpus/cpu_max/unlimited")), Some(Quota::Unlimited));
        assert_eq!(v2(include_bytes!("../../../fuzz/corpus/cpu_max/half")), Some(Quota::Cores(0.5)));
        assert_eq!(v2(b"250000 100000\n"), Some(Quota::Cores(2.5)));
    }

    #[test]
    fn v1_has_them_in_two_files() {
        assert_eq!(v1_quota(b"-1\n"), Some(None));
        assert_eq!(v1_quota(b"20000\n"), Some(Some(20_000)));
        assert_eq!(cores(20_000, 100_000), Some(Quota::Cores(0.2)));
    }

    #[test]
    fn a_zero_period_or_a_malformed_quota_is_refused() {
        assert_eq!(v2(b"1000 0\n"), None);
        for bad in ["", "max", "max x", "-1 100000", "1000", "min 100000"] {
            assert_eq!(v2(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(v1_quota(b"-2\n"), None);
    }
}

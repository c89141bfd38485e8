//! CPU time and throttling. On v1 user and system come from cpuacct.stat, in clock ticks: its
//! finer brothers cpuacct.usage_user and usage_sys share ticks out and were 8 to 18 % wrong.

use std::time::Duration;

use crate::host::text::{decimal, fields, keyed, lines, number, ticks};
use crate::host::{ContainerCpu, Throttling};

/// v1's cpuacct.stat: user and system time, 10 ms fine.
#[must_use]
pub fn v1_modes(text: &[u8]) -> Option<(Duration, Duration)> {
    Some((ticks(keyed(text, b"user")?), ticks(keyed(text, b"system")?)))
}

/// v1's cpuacct.usage: all CPU time, in nanoseconds.
#[must_use]
pub fn v1_total(text: &[u8]) -> Option<Duration> {
    number(text).map(Duration::from_nanos)
}

/// v1's cpu.stat.
#[must_use]
pub fn v1_throttling(text: &[u8]) -> Option<Throttling> {
    Some(Throttling {
        periods: keyed(text, b"nr_periods")?,
        throttled_periods: keyed(text, b"nr_throttled")?,
        throttled: Duration::from_nanos(keyed(text, b"throttled_time")?),
    })
}

/// v2's cpu.stat: CPU time, and throttling where the cpu controller is on.
#[must_use]
pub fn v2_stat(text: &[u8]) -> Option<(ContainerCpu, Option<Throttling>)> {
    let mut values = [None; 6];
    const KEYS: [&[u8]; 6] =
        [b"usage_usec", b"user_usec", b"system_usec", b"nr_periods", b"nr_throttled", b"throttled_usec"];
    for line in lines(text) {
        let mut fields = fields(line);
        let name = fields.next()?;
        for (key, value) in KEYS.iter().zip(&mut values) {
            if *key == name {
                *value = decimal(fields.next()?);
            }
        }
    }
    let [usage, user, system, periods, throttled_periods, throttled] = values;
    let cpu = ContainerCpu {
        user: Duration::from_micros(user?),
        system: Duration::from_micros(system?),
        total: Duration::from_micros(usage?),
    };
    let throttling = match (periods, throttled_periods, throttled) {
        (Some(periods), Some(throttled_periods), Some(throttled)) => {
            Some(Throttling { periods, throttled_periods, throttled: Duration::from_micros(throttled) })
        }
        _ => None,
    };
    Some((cpu, throttling))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v1_counts_ticks_and_nanoseconds() {
        let modes = v1_modes(include_bytes!("../../../fuzz/corpus/cpuacct_stat/6.18")).expect("a real file");
        assert_eq!(modes, (Duration::from_millis(162_340), Duration::from_millis(93_070)));
        assert_eq!(v1_total(b"270123456789\n"), Some(Duration::from_nanos(270_123_456_789)));
        let throttling = v1_throttling(include_bytes!("../../../fuzz/corpus/cpu_stat/v1-6.18"));
        let throttling = throttling.expect("a real file");
        assert_eq!((throttling.periods, throttling.throttled_periods), (42, 41));
        assert_eq!(throttling.throttled, Duration::from_nanos(3_281_234_567));
    }

    #[test]
    fn v2_counts_microseconds() {
        for file in [
            include_bytes!("../../../fuzz/corpus/cpu_stat/v2-5.10").as_slice(),
            include_bytes!("../../../fuzz/corpus/cpu_stat/v2-6.12"),
        ] {
            let (cpu, throttling) = v2_stat(file).expect("a real file");
            assert_eq!(cpu.total, Duration::from_micros(8_123_456));
            assert_eq!(cpu.user, Duration::from_micros(6_000_001));
            assert_eq!(cpu.system, Duration::from_micros(2_123_455));
            let throttling = throttling.expect("the controller is on");
            assert_eq!((throttling.periods, throttling.throttled_periods), (812, 17));
            assert_eq!(throttling.throttled, Duration::from_micros(1_700_250));
        }
    }

    #[test]
    fn without_its_controller_v2_still_counts_time() {
        let (cpu, throttling) =
            v2_stat(include_bytes!("../../../fuzz/corpus/cpu_stat/v2-no_controller")).expect("a real file");
        assert_eq!((cpu.total, throttling), (Duration::from_micros(5_200), None));
    }

    #[test]
    fn cut_files_are_no_reading() {
        assert_eq!(v1_modes(b"user 1\n"), None);
        assert_eq!(v1_total(b"\n"), None);
        assert_eq!(v1_throttling(b"nr_periods 1\nnr_throttled 1\n"), None);
        assert_eq!(v2_stat(b"usage_usec 1\nuser_usec\n"), None);
        assert_eq!(v2_stat(b""), None);
    }
}

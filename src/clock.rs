//! Time as a tracer sees it: a value it is given, never one that it reads.

use std::fmt;
use std::time::Duration;

/// One moment, on both clocks that matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Since boot, not counting suspend (CLOCK_MONOTONIC): for intervals and cooldowns.
    pub mono: Duration,
    /// The calendar: for documents only.
    pub wall: Wall,
}

impl Now {
    /// The moment that lies `past` before this one.
    #[must_use]
    pub fn minus(self, past: Duration) -> Now {
        let ms = u64::try_from(past.as_millis()).unwrap_or(u64::MAX);
        Now { mono: self.mono.saturating_sub(past), wall: Wall(self.wall.0.saturating_sub(ms)) }
    }

    /// How many milliseconds this moment lies after `other`; less than 0: before it.
    #[must_use]
    pub fn ms_after(self, other: Now) -> i64 {
        let ms = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        match self.mono.checked_sub(other.mono) {
            Some(after) => ms(after),
            None => -ms(other.mono.saturating_sub(self.mono)),
        }
    }
}

/// A calendar time in milliseconds since 1970, shown as RFC 3339 in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wall(pub u64);

const DAY_SECONDS: u64 = 86_400;

impl Wall {
    /// Reads what `Display` writes. `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Wall> {
        let bytes = text.as_bytes();
        let shape = b"0000-00-00T00:00:00.000Z";
        if bytes.len() != shape.len() {
            return None;
        }
        for (have, want) in bytes.iter().zip(shape) {
            let fits = if *want == b'0' { have.is_ascii_digit() } else { have == want };
            if !fits {
                return None;
            }
        }
        let part = |from: usize, to: usize| text[from..to].parse::<u64>().ok();
        let days = days_from_civil(part(0, 4)?, part(5, 7)?, part(8, 10)?)?;
        let (hour, minute, second) = (part(11, 13)?, part(14, 16)?, part(17, 19)?);
        if hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        Some(Wall((days * DAY_SECONDS + hour * 3600 + minute * 60 + second) * 1000 + part(20, 23)?))
    }
}

impl fmt::Display for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0 / 1000;
        let (year, month, day) = civil_from_days(seconds / DAY_SECONDS);
        let of_day = seconds % DAY_SECONDS;
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
            of_day / 3600,
            of_day / 60 % 60,
            of_day % 60,
            self.0 % 1000
        )
    }
}

impl serde::Serialize for Wall {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// The proleptic Gregorian date of a day counted from 1970-01-01: eras of 400 years that begin in March.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

fn days_from_civil(year: u64, month: u64, day: u64) -> Option<u64> {
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let year = year - u64::from(month <= 2);
    let era = year / 400;
    let year_of_era = year % 400;
    let march_month = if month > 2 { month - 3 } else { month + 9 };
    let of_year = (153 * march_month + 2) / 5 + day - 1;
    let of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year;
    Some(era * 146_097 + of_era - 719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_may_lie_before_another_or_after_it() {
        let now = Now { mono: Duration::from_secs(60), wall: Wall(1_700_000_000_000) };
        let before = now.minus(Duration::from_millis(1500));
        assert_eq!(before, Now { mono: Duration::from_millis(58_500), wall: Wall(1_699_999_998_500) });
        assert_eq!((before.ms_after(now), now.ms_after(before), now.ms_after(now)), (-1500, 1500, 0));
        let boot = now.minus(Duration::MAX);
        assert_eq!((boot, boot.ms_after(now)), (Now { mono: Duration::ZERO, wall: Wall(0) }, -60_000));
        let never = Now { mono: Duration::MAX, ..now };
        assert_eq!((never.ms_after(boot), boot.ms_after(never)), (i64::MAX, -i64::MAX));
    }

    #[test]
    fn a_calendar_time_is_written_as_rfc_3339_and_read_back() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_826_554_321, "2000-02-29T12:15:54.321Z"),
            (1_795_452_413_007, "2026-11-23T16:46:53.007Z"),
            (4_107_542_399_999, "2100-02-28T23:59:59.999Z"),
        ] {
            assert_eq!(Wall(ms).to_string(), text);
            assert_eq!(Wall::parse(text), Some(Wall(ms)));
        }
    }

    #[test]
    fn every_day_of_four_centuries_survives_the_round_trip() {
        for day in 0..146_097 {
            let wall = Wall(day * DAY_SECONDS * 1000);
            assert_eq!(Wall::parse(&wall.to_string()), Some(wall));
        }
    }

    #[test]
    fn an_impossible_calendar_time_is_refused() {
        for text in [
            "",
            "2026-11-23",
            "2026-13-01T00:00:00.000Z",
            "2026-01-01T24:00:00.000Z",
            "2026-01-01 00:00:00.000Z",
        ] {
            assert_eq!(Wall::parse(text), None, "{text}");
        }
    }
}

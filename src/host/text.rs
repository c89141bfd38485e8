//! Text as the kernel writes it: lines of fields and decimal numbers. What does not fit is
//! `None`; nothing here allocates or panics.

use std::time::Duration;

/// Clock ticks a second in what the kernel shows to users: 100 on every architecture that counts.
const USER_HZ: u64 = 100;

/// The lines that are not empty, without their newlines.
pub(crate) fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
}

/// The fields of a line: what stands between spaces and tabs.
pub(crate) fn fields(line: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    line.split(|byte| matches!(byte, b' ' | b'\t')).filter(|field| !field.is_empty())
}

/// A decimal number: digits only, 64 bits at most.
pub(crate) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| {
        let value = char::from(*digit).to_digit(10)?;
        number.checked_mul(10)?.checked_add(u64::from(value))
    })
}

/// A file that is one decimal number.
pub(crate) fn number(text: &[u8]) -> Option<u64> {
    decimal(text.trim_ascii())
}

/// A decimal fraction such as `12.34`: digits, a point, digits; no sign, exponent or `inf`.
pub(crate) fn fraction(digits: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(digits).ok()?;
    let (whole, part) = text.split_once('.')?;
    let plain = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    // Digits beyond what the type can hold read as infinite.
    if plain(whole) && plain(part) {
        text.parse().ok().filter(|number: &f64| number.is_finite())
    } else {
        None
    }
}

/// The number on the line `key number`, however many spaces or a colon stand between; what
/// follows the number, as a unit, is ignored.
pub(crate) fn keyed(text: &[u8], key: &[u8]) -> Option<u64> {
    let rest = lines(text).find_map(|line| match line.strip_prefix(key)? {
        [b' ' | b'\t' | b':', rest @ ..] => Some(rest),
        _ => None,
    })?;
    decimal(fields(rest).next()?)
}

/// Clock ticks as time.
pub(crate) fn ticks(count: u64) -> Duration {
    let part = count % USER_HZ * (1_000 / USER_HZ);
    Duration::from_secs(count / USER_HZ) + Duration::from_millis(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_decimal_digits_that_fit_64_bits() {
        assert_eq!(decimal(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(number(b"42\n"), Some(42));
        for bad in [&b""[..], b"-1", b"+1", b"1.0", b"0x1", b"18446744073709551616", b" 1"] {
            assert_eq!(decimal(bad), None, "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn a_fraction_has_digits_on_both_sides_of_its_point() {
        assert_eq!(fraction(b"12.50"), Some(12.5));
        for bad in ["", "1", ".5", "1.", "-1.0", "inf", "nan", "1e5.0", "1.0e5"] {
            assert_eq!(fraction(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(fraction(format!("{}.0", "9".repeat(400)).as_bytes()), None);
    }

    #[test]
    fn a_key_is_the_whole_first_field() {
        let text = b"MemTotal:       123 kB\nrss_huge 5\nrss 7\nlast\n";
        assert_eq!(keyed(text, b"MemTotal"), Some(123));
        assert_eq!(keyed(text, b"rss"), Some(7));
        assert_eq!(keyed(text, b"last"), None);
        assert_eq!(keyed(text, b"rs"), None);
    }

    #[test]
    fn ticks_are_hundredths_of_a_second() {
        assert_eq!(ticks(1_234), Duration::from_millis(12_340));
        assert_eq!(ticks(u64::MAX).as_secs(), u64::MAX / 100);
    }
}

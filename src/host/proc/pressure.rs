//! Pressure stall information: /proc/pressure/* and the cgroups' *.pressure.

use std::time::Duration;

use crate::host::text::{decimal, fields, fraction, lines};

/// One line: how much of the time tasks stalled.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stall {
    /// Percent of the last 10 seconds.
    pub avg10: f64,
    /// Percent of the last minute.
    pub avg60: f64,
    /// Percent of the last 5 minutes.
    pub avg300: f64,
    /// Since the start.
    pub total: Duration,
}

/// One file.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stalls {
    /// At least one task stalled.
    pub some: Stall,
    /// All tasks stalled. Before 5.13 the cpu file has no such line.
    pub full: Option<Stall>,
}

/// Reads the file.
#[must_use]
pub fn parse(text: &[u8]) -> Option<Stalls> {
    let of = |kind: &[u8]| lines(text).find_map(|line| stall(line, kind));
    Some(Stalls { some: of(b"some")?, full: of(b"full") })
}

fn stall(line: &[u8], kind: &[u8]) -> Option<Stall> {
    let mut fields = fields(line);
    if fields.next()? != kind {
        return None;
    }
    let mut next = |key: &[u8]| fields.next()?.strip_prefix(key);
    Some(Stall {
        avg10: fraction(next(b"avg10=")?)?,
        avg60: fraction(next(b"avg60=")?)?,
        avg300: fraction(next(b"avg300=")?)?,
        total: Duration::from_micros(decimal(next(b"total=")?)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_lines_are_read() {
        let stalls = parse(include_bytes!("../../../fuzz/corpus/pressure/io-6.18")).expect("a real file");
        assert_eq!((stalls.some.avg10, stalls.some.avg300), (0.53, 0.45));
        assert_eq!(stalls.some.total, Duration::from_micros(7_108_640));
        assert_eq!(stalls.full.expect("a line").total, Duration::from_micros(6_643_994));
    }

    #[test]
    fn an_older_kernels_cpu_file_has_no_full_line() {
        let stalls = parse(include_bytes!("../../../fuzz/corpus/pressure/cpu-5.10")).expect("a real file");
        assert_eq!((stalls.some.avg60, stalls.full), (1.27, None));
    }

    #[test]
    fn a_truncated_pressure_line_is_refused() {
        assert_eq!(parse(b"some avg10=0.53 avg60=0.53 avg300=0.45\n"), None);
        assert_eq!(parse(b"full avg10=0.53 avg60=0.53 avg300=0.45 total=1\n"), None);
        assert_eq!(parse(b""), None);
    }
}

//! Foreign text made fit for a terminal, and quantities made fit for people.

use std::fmt;
use std::io::{self, Write};

/// A text in one line that cannot steer a terminal: control characters, and those that change the
/// direction of writing, are shown as `?`.
pub(super) fn line(text: &str) -> Line<'_> {
    Line(text)
}

pub(super) struct Line<'a>(&'a str);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.0.contains(is_steering) {
            return f.pad(self.0);
        }
        let clean: String = self.0.chars().map(|c| if is_steering(c) { '?' } else { c }).collect();
        f.pad(&clean)
    }
}

fn is_steering(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Rows in columns, the first row being their heads. Cells are foreign text.
pub(super) fn table<const N: usize>(
    indent: &str,
    rows: &[[String; N]],
    out: &mut dyn Write,
) -> io::Result<()> {
    let rows: Vec<&[String]> = rows.iter().map(<[String; N]>::as_slice).collect();
    columns(indent, &rows, out)
}

/// As `table`, where the number of columns is not known before.
pub(super) fn columns(indent: &str, rows: &[&[String]], out: &mut dyn Write) -> io::Result<()> {
    let count = rows.iter().map(|row| row.len()).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    for row in rows {
        let mut text = String::from(indent);
        for (cell, width) in row.iter().zip(&widths) {
            text.push_str(&format!("{:<width$}  ", line(cell)));
        }
        writeln!(out, "{}", text.trim_end())?;
    }
    Ok(())
}

/// A number as its field's name says it is meant: `_bytes`, `_ms`, `_us`, `_percent`, ...
pub(super) fn quantity(name: &str, number: &serde_json::Number) -> String {
    let value = number.as_f64().unwrap_or(f64::NAN);
    let unit = name.rsplit('_').next().unwrap_or_default();
    match unit {
        "bytes" => scaled(value, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB"]),
        "bps" => scaled(value, 1024.0, &["B/s", "KiB/s", "MiB/s", "GiB/s", "TiB/s"]),
        "ns" => duration(value / 1e9),
        "us" => duration(value / 1e6),
        "ms" => duration(value / 1e3),
        "seconds" => duration(value),
        "percent" => format!("{} %", rounded(value)),
        _ if number.is_f64() => rounded(value),
        _ => number.to_string(),
    }
}

/// A length of time with two or three digits that matter.
pub(super) fn duration(seconds: f64) -> String {
    match seconds.abs() {
        whole if whole >= 2.0 * 86_400.0 => format!("{:.1} d", seconds / 86_400.0),
        whole if whole >= 2.0 * 3600.0 => format!("{:.1} h", seconds / 3600.0),
        whole if whole >= 120.0 => format!("{:.1} min", seconds / 60.0),
        whole if whole >= 1.0 => format!("{seconds:.1} s"),
        whole if whole >= 1e-3 => format!("{:.1} ms", seconds * 1e3),
        0.0 => "0 s".into(),
        _ => format!("{:.1} us", seconds * 1e6),
    }
}

/// A number of bytes.
pub(super) fn bytes(count: u64) -> String {
    quantity("bytes", &count.into())
}

fn scaled(mut value: f64, step: f64, units: &[&str]) -> String {
    let mut units = units.iter();
    let mut unit = units.next().copied().unwrap_or_default();
    let whole = value;
    for next in units {
        if value.abs() < step {
            break;
        }
        value /= step;
        unit = next;
    }
    if value == whole { format!("{value} {unit}") } else { format!("{value:.1} {unit}") }
}

fn rounded(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_in_documents_do_not_reach_the_terminal() {
        let hostile = "a\x1b[2Jb\u{9b}31mc\r\n\u{202e}d\x07\u{2028}é漢";
        assert_eq!(line(hostile).to_string(), "a?[2Jb?31mc???d??é漢");
        assert_eq!(format!("{:<5}|", line("\x1bx")), "?x   |");
        assert_eq!(format!("{:.2}", line("abc")), "ab");
    }

    #[test]
    fn numbers_are_shown_in_the_unit_of_their_field_name() {
        let shown = |name, text: &str| quantity(name, &text.parse().expect("a number"));
        for (name, number, text) in [
            ("rss_bytes", "512", "512 B"),
            ("anon_bytes", "1610612736", "1.5 GiB"),
            ("read_bps", "2048.5", "2.0 KiB/s"),
            ("duration_ms", "10012", "10.0 s"),
            ("schedule_latency_us", "150", "150.0 us"),
            ("uptime_ms", "259200000", "3.0 d"),
            ("blocked_ms", "0", "0 s"),
            ("user_percent", "82.333333", "82.33 %"),
            ("load_avg", "5.50", "5.5"),
            ("samples", "18446744073709551615", "18446744073709551615"),
            ("nr_iowait", "0", "0"),
        ] {
            assert_eq!(shown(name, number), text, "{name} {number}");
        }
    }
}

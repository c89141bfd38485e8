//! Reading text that somebody else writes: whole lines only, each and all of bounded length.

use std::io::{self, BufRead as _, BufReader, Read};

/// What one read(2) asks for: kallsyms and maps are made by the kernel as they are read, and
/// small reads cost it more.
const BUFFER: usize = 64 << 10;

/// A longer line is not one that we could use.
const LINE_MAX: u64 = 8 << 10;

/// Hands each whole line to `each`, without its newline, until the end or `budget` bytes.
///
/// A line over `LINE_MAX` is skipped. So is a last one without a newline: who writes it is not done.
pub(super) fn each_line(from: impl Read, budget: u64, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let mut from = BufReader::with_capacity(BUFFER, from.take(budget));
    let mut line = Vec::new();
    loop {
        line.clear();
        if (&mut from).take(LINE_MAX).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        if line.pop_if(|last| *last == b'\n').is_some() {
            each(&line);
        } else {
            from.skip_until(b'\n')?;
        }
    }
}

/// A hexadecimal number as the kernel writes it: digits only, 64 bits at most.
pub(super) fn hex(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 16 {
        return None;
    }
    digits.iter().try_fold(0, |number, digit| {
        let value = char::from(*digit).to_digit(16)?;
        Some(number << 4 | u64::from(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &[u8], budget: u64) -> Vec<Vec<u8>> {
        let mut seen = Vec::new();
        each_line(text, budget, |line| seen.push(line.to_vec())).expect("reading a slice cannot fail");
        seen
    }

    #[test]
    fn a_line_is_read_only_once_its_newline_is_there() {
        assert_eq!(lines(b"a\n\nbc\ncut", 100), [b"a".to_vec(), vec![], b"bc".to_vec()]);
        assert_eq!(lines(b"", 100), [b""; 0]);
    }

    #[test]
    fn an_endless_line_is_skipped_and_the_next_one_is_not() {
        for long in [LINE_MAX, LINE_MAX + 1, 3 * LINE_MAX, 200 << 10] {
            let mut text = vec![b'x'; usize::try_from(long).expect("small")];
            text.extend(b"\nnext\n");
            assert_eq!(lines(&text, u64::MAX), [b"next"], "{long}");
        }
    }

    #[test]
    fn the_line_reader_stops_at_its_budget() {
        assert_eq!(lines(b"one\ntwo\n", 6), [b"one"]);
    }

    #[test]
    fn a_number_is_hexadecimal_digits_and_nothing_else() {
        assert_eq!(hex(b"ffffffff81000000"), Some(0xffff_ffff_8100_0000));
        assert_eq!(hex(b"0"), Some(0));
        for bad in [&b""[..], b"+1", b"0x1", b"g", b"1ffffffffffffffff", b" 1"] {
            assert_eq!(hex(bad), None, "{bad:?}");
        }
    }
}

//! The config's readers as fuzz targets.

use std::time::Duration;

use super::{Config, environment};
use crate::clock::Wall;
use crate::host::containers::filter::Pattern;
use crate::knob::{Bytes, Shown, size, time};
use crate::tracer::TRACERS;

/// Beyond this not every whole number is one in the file.
const EXACT: u64 = 1 << 53;

/// A whole file: it is taken, or each thing that is wrong has a line of its own.
pub fn file(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match Config::parse(&text, TRACERS) {
        Ok(config) => assert_eq!(config.tracers.len(), TRACERS.len()),
        Err(error) => {
            let words = error.to_string();
            assert!(!words.is_empty() && words.lines().all(|line| !line.is_empty()), "{words:?}");
        }
    }
}

/// Words in it, and on command lines: lengths of time, sizes, patterns, variables, times of day. What
/// is taken is shown as it would be read.
pub fn words(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Some(time_read) = time(&text) {
        // It is shown to the millisecond.
        let whole = u64::try_from(time_read.as_millis()).unwrap_or(u64::MAX);
        if whole < EXACT / 1000 {
            let whole = Duration::from_millis(whole);
            let again = time(&Shown(whole).to_string());
            assert!(again.is_some_and(|again| again.abs_diff(whole) < Duration::from_millis(1)), "{again:?}");
        }
    }
    if let Some(bytes) = size(&text).filter(|bytes| *bytes < EXACT) {
        assert_eq!(size(&Bytes(bytes).to_string()), Some(bytes));
    }
    match Pattern::parse(&text) {
        Ok(pattern) => assert_eq!(Pattern::parse(text.as_ref()), Ok(pattern)),
        Err(words) => assert!(words.starts_with("must ")),
    }
    let put_in = environment::expanded(&text, |name| (!name.contains('$')).then(|| "value".to_owned()));
    match put_in {
        Ok(put_in) => assert!(text.contains("${") || put_in == *text),
        Err(words) => assert!(!words.is_empty()),
    }
    if let Some(wall) = Wall::parse(&text) {
        let again = Wall::parse(&wall.to_string());
        assert_eq!(again, Some(wall), "{text} is {wall}");
    }
}

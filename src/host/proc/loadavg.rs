//! /proc/loadavg: the three averages.

use crate::host::Load;
use crate::host::text::{fields, fraction};

/// Reads the file.
#[must_use]
pub fn parse(text: &[u8]) -> Option<Load> {
    let mut fields = fields(text);
    let mut next = || fields.next().and_then(fraction);
    Some(Load { one: next()?, five: next()?, fifteen: next()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_averages_are_read() {
        let load = parse(include_bytes!("../../../fuzz/corpus/loadavg/6.18"));
        assert_eq!(load, Some(Load { one: 0.81, five: 0.38, fifteen: 0.22 }));
        let load = parse(include_bytes!("../../../fuzz/corpus/loadavg/busy"));
        assert_eq!(load, Some(Load { one: 1024.07, five: 998.5, fifteen: 310.12 }));
    }

    #[test]
    fn a_malformed_loadavg_is_refused() {
        assert_eq!(parse(b"0.81 0.38\n"), None);
        assert_eq!(parse(b"nan inf -1.0 1/2 3\n"), None);
    }
}

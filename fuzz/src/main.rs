//! One program for all fuzz targets: ONSET_FUZZ names the one that is run. `fuzz/run` builds it.
#![no_main]

use std::sync::OnceLock;

static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let target = TARGET.get_or_init(|| {
        let name = std::env::var("ONSET_FUZZ").unwrap_or_default();
        match onset::fuzz::TARGETS.iter().find(|(known, _)| *known == name) {
            Some((_, target)) => *target,
            None => panic!("ONSET_FUZZ must name a target, not {name:?}; see src/fuzz.rs"),
        }
    });
    target(data);
});

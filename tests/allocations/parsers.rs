//! Parsers that promise to take nothing from the heap keep that on every file of the fuzzing corpora:
//! their fuzz targets hold them to it, once someone counts.

use std::path::Path;

use onset::fuzz::{TARGETS, heap};

use crate::ALLOCATIONS;

#[test]
fn no_parser_of_the_loop_allocates() {
    heap::count_by(|| ALLOCATIONS.get());
    let broken = std::panic::catch_unwind(|| heap::untouched(|| vec![1_u8]));
    assert!(broken.is_err(), "what is taken is counted");
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut files = 0;
    for (name, target) in TARGETS {
        for file in std::fs::read_dir(corpus.join(name)).unwrap() {
            target(&std::fs::read(file.unwrap().path()).unwrap());
            files += 1;
        }
    }
    assert!(files > TARGETS.len());
}

//! The hot paths beside what they are measured against, as one table: `make bench`. Ratios can be
//! compared between machines, times cannot; so can instructions, which valgrind counts at the end by
//! running this program with `--count PATH TIMES`.
#![allow(missing_docs, clippy::cast_precision_loss, clippy::unwrap_used)]

mod count;
mod documents;
mod host;
mod parsers;
mod profile;
mod ring;
mod scrape;
mod table;
mod tree;

use std::path::PathBuf;

/// A folder that goes away at the end.
pub struct Scratch(pub PathBuf);

impl Scratch {
    fn new() -> Scratch {
        let path = std::env::temp_dir().join(format!("onset-bench-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a scratch folder");
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn main() {
    let words: Vec<String> = std::env::args().collect();
    let scratch = Scratch::new();
    // cargo passes --bench; there is nothing else to say.
    if let Some(at) = words.iter().position(|word| word == "--count") {
        let times = words.get(at + 2).and_then(|times| times.parse().ok()).expect("--count PATH TIMES");
        count::run(words.get(at + 1).expect("a path"), times, &scratch);
        return;
    }
    host::lines(&scratch);
    documents::lines(&scratch);
    scrape::lines(&scratch);
    parsers::lines();
    profile::lines();
    ring::lines();
    count::lines();
}

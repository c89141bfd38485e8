//! The hot paths beside what they are measured against, as one table: `make bench`. Ratios can be
//! compared between machines, times cannot; so can instructions, which valgrind counts at the end by
//! running this program with `--count PATH TIMES`. Some parts alone: `cargo bench --bench hot -- documents`.
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

/// Prints its lines.
type Part = fn(&Scratch);

fn main() {
    let words: Vec<String> = std::env::args().collect();
    let scratch = Scratch::new();
    if let Some(at) = words.iter().position(|word| word == "--count") {
        let times = words.get(at + 2).and_then(|times| times.parse().ok()).expect("--count PATH TIMES");
        count::run(words.get(at + 1).expect("a path"), times, &scratch);
        return;
    }
    // cargo passes --bench; other words name the parts that are wanted.
    let parts: [(&str, Part); 7] = [
        ("host", host::lines),
        ("documents", documents::lines),
        ("scrape", scrape::lines),
        ("parsers", |_| parsers::lines()),
        ("profile", |_| profile::lines()),
        ("ring", |_| ring::lines()),
        ("count", |_| count::lines()),
    ];
    let wanted: Vec<&String> = words.iter().skip(1).filter(|word| !word.starts_with("--")).collect();
    for (name, lines) in parts {
        if wanted.is_empty() || wanted.iter().any(|word| *word == name) {
            lines(&scratch);
        }
    }
}

//! Who may import whom: reads the sources and refuses what the architecture does not allow.
//! Tracers are pure; the I/O modules do not know one another; nobody imports the loop but `main`.

use std::fs;
use std::path::{Path, PathBuf};

mod circles;

/// Each module that does I/O, by the path of its file or folder below `src/`, with those of the
/// others that it may import.
const IO: [(&str, &[&str]); 9] = [
    ("http", &[]),
    ("bpf", &[]),
    ("capture", &["bpf"]),
    ("log", &[]),
    ("output", &["log"]),
    ("ship", &["log", "output"]),
    ("control", &[]),
    ("host/reader", &[]),
    ("container_names", &[]),
];

/// Pure parts of modules that do I/O: all may import them.
const PURE_PARTS: [&str; 1] = ["log/record"];

/// Only `main` and the commands import these.
const TOP: [&str; 2] = ["agent", "cli"];

/// What a tracer must not touch.
const WORLD: [&str; 9] =
    ["fs", "net", "thread", "process", "env", "Instant", "SystemTime", "stdin", "stdout"];

#[test]
fn tracers_use_no_system_call_and_no_clock() {
    let mut files = 0;
    for (path, text) in sources("tracer") {
        files += 1;
        for import in imports(&text, "std") {
            let part = WORLD.iter().find(|part| import.split('/').any(|segment| segment == **part));
            assert_eq!(part, None, "{} imports std::{import}", path.display());
        }
        for crate_name in ["libc::", "mio::", "libbpf_rs::", "memmap2::", "Instant::now", "SystemTime::now"] {
            assert!(!text.contains(crate_name), "{} uses {crate_name}", path.display());
        }
        for import in imports(&text, "crate") {
            let io = IO.iter().map(|(name, _)| *name).chain(TOP).chain(["sys", "symbol"]);
            let wrong = io.into_iter().find(|name| within(&import, name) && !pure_part(&import));
            assert_eq!(wrong, None, "{} imports crate::{import}", path.display());
        }
    }
    assert!(files > 10, "the tracers are where this test looks for them");
}

#[test]
fn modules_that_do_io_do_not_import_one_another() {
    for (name, allowed) in IO {
        for (path, text) in sources(name) {
            for import in imports(&text, "crate") {
                let others = IO.iter().map(|(other, _)| *other).chain(TOP).filter(|other| *other != name);
                let wrong = others
                    .into_iter()
                    .find(|other| within(&import, other) && !allowed.contains(other) && !pure_part(&import));
                assert_eq!(wrong, None, "{} imports crate::{import}", path.display());
            }
        }
    }
}

#[test]
fn pure_modules_import_no_io_module() {
    for name in [
        "host",
        "stacks",
        "metric",
        "clock",
        "capture_data",
        "fixed_buf",
        "knob",
        "config",
        "layout",
        "record_id",
    ] {
        for (path, text) in sources(name) {
            let below = path.strip_prefix(root()).expect("below src").with_extension("");
            if IO.iter().any(|(name, _)| below.starts_with(name)) {
                continue;
            }
            for import in imports(&text, "crate") {
                let io = IO.iter().map(|(name, _)| *name).chain(TOP);
                let wrong = io.into_iter().find(|io| within(&import, io) && !pure_part(&import));
                assert_eq!(wrong, None, "{} imports crate::{import}", path.display());
            }
        }
    }
}

#[test]
fn how_a_bpf_object_lays_out_what_it_shares_is_written_in_c_alone() {
    let hooks =
        fs::read_dir(root().join("../bpf")).expect("programs").map(|entry| entry.expect("an entry").path());
    let tracers = hooks
        .filter_map(|path| Some(format!("tracer/{}", path.file_name()?.to_str()?.strip_suffix(".bpf.c")?)));
    let mut files = 0;
    for (path, text) in tracers.chain(["bpf".to_owned()]).flat_map(|module| sources(&module)) {
        files += 1;
        let code = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default();
        for by_hand in ["offset_of!", "repr(C)", "split_first_chunk"] {
            assert!(!code.contains(by_hand), "{}: {by_hand} is crate::layout's work", path.display());
        }
        let twin = imports(code, "super")
            .into_iter()
            .find(|import| within(import, "skeletons") && import.split('/').any(|part| part == "types"));
        assert_eq!(twin, None, "{}: crate::layout has these types", path.display());
    }
    assert!(files > 15, "the readers of records are where this test looks for them: {files}");
}

#[test]
fn imports_are_found_in_all_their_forms() {
    let text = "use crate::{log, host::{reader::Reader, Key}};\nfn f() { crate::http::Server::new(); }\n\
                // crate::bpf is only spoken of\nuse crate::ship::{self, Cursor}; //! crate::cli\n";
    let mut found = imports(text, "crate");
    found.sort();
    let want = ["host/Key", "host/reader/Reader", "http/Server/new", "log", "ship/Cursor", "ship/self"];
    assert_eq!(found, want);
    assert!(within("host/reader/Reader", "host/reader") && !within("host/readers", "host/reader"));
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The sources of a module: its file and all that is in its folder, as far as they exist.
fn sources(module: &str) -> Vec<(PathBuf, String)> {
    let mut open = vec![root().join(module), root().join(module).with_extension("rs")];
    let mut found = Vec::new();
    while let Some(path) = open.pop() {
        if let Ok(entries) = fs::read_dir(&path) {
            open.extend(entries.map(|entry| entry.expect("an entry").path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") && path.exists() {
            let text = fs::read_to_string(&path).expect("UTF-8");
            found.push((path, text));
        }
    }
    found
}

fn within(import: &str, module: &str) -> bool {
    import.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn pure_part(import: &str) -> bool {
    PURE_PARTS.iter().any(|part| within(import, part))
}

/// Every path that begins with `root::` outside comments, groups taken apart, as `a/b/c`.
fn imports(text: &str, root: &str) -> Vec<String> {
    let code: Vec<&str> = text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
    let code = code.join("\n");
    let begin = format!("{root}::");
    let mut found = Vec::new();
    for (at, _) in code.match_indices(&begin) {
        let inside_a_word = code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
        if !inside_a_word {
            tree(&code[at + begin.len()..], "", &mut found);
        }
    }
    found
}

/// Takes one path or group off the front, adds what it names, and returns what is left.
fn tree<'t>(text: &'t str, prefix: &str, found: &mut Vec<String>) -> &'t str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = rest.trim_start().trim_start_matches(',').trim_start();
            if let Some(rest) = rest.strip_prefix('}') {
                return rest;
            }
            let left = tree(rest, prefix, found);
            if left.len() == rest.len() {
                return rest;
            }
            rest = left;
        }
    }
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let path = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") };
    match rest.strip_prefix("::") {
        Some(below) if !name.is_empty() => tree(below, &path, found),
        _ => {
            found.push(path);
            rest
        }
    }
}

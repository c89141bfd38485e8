//! What it takes to add a tracer with a hook, a capture and an output: each of the examples of docs/ is added to
//! a copy of the tree as its page says. The page must show the diffstat of just that, and the copy must
//! build, pass the tests that take such parts up by themselves, and have the part in its binary.
//!
//! `ONSET_ADDITIONS=write` writes the diffstats into the pages.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One example, and all that is done to add it.
struct Addition {
    page: &'static str,
    /// Files of docs/example, and where each goes.
    files: &'static [(&'static str, &'static str)],
    /// In a file, behind a line that ends in these words, this line.
    lines: &'static [(&'static str, &'static str, &'static str)],
    /// In a file, in place of these words, those.
    words: &'static [(&'static str, &'static str, &'static str)],
}

const TRACER: Addition = Addition {
    page: "docs/how-to-add-a-tracer.md",
    files: &[("reclaim.rs", "src/tracer/reclaim.rs"), ("reclaim.bpf.c", "bpf/reclaim.bpf.c")],
    lines: &[
        ("src/tracer/mod.rs", "mod profile;", "mod reclaim;"),
        ("src/tracer/mod.rs", "    &oom::SPEC,", "    &reclaim::SPEC,"),
    ],
    words: &[],
};

const CAPTURE: Addition = Addition {
    page: "docs/how-to-add-a-capture.md",
    files: &[("offcpu.rs", "src/capture/offcpu.rs")],
    lines: &[
        ("src/capture/mod.rs", "mod naming;", "mod offcpu;"),
        (
            "src/capture/table.rs",
            "load: io::load },",
            "    Registration { kinds: &[CaptureKind::OffCpu], load: offcpu::load },",
        ),
        ("src/capture_data/mod.rs", "    Io,", "    /// Where tasks sleep, as stacks.\n    OffCpu,"),
        (
            "src/capture_data/mod.rs",
            "CaptureKind::Io => \"io\",",
            "            CaptureKind::OffCpu => \"offcpu\",",
        ),
        (
            "src/capture_data/mod.rs",
            "CaptureKind::Io => 2 << 20,",
            "            // As running code.\n            CaptureKind::OffCpu => 4 << 20,",
        ),
        (
            "src/capture_data/mod.rs",
            "    Io(DiskIo<'a>),",
            "    /// Of `CaptureKind::OffCpu`.\n    OffCpu(Profile<'a>),",
        ),
        (
            "src/tracer/tests/mod.rs",
            "CaptureKind::Io => CaptureData::Io(iotracing::found()),",
            "        CaptureKind::OffCpu => CaptureData::OffCpu(Profile::default()),",
        ),
        (
            "src/tracer/fuzz/captures.rs",
            "CaptureKind::Io => CaptureData::Io(self.disk_io(arena, many)),",
            "            CaptureKind::OffCpu => CaptureData::OffCpu(self.profile(arena, many)),",
        ),
        (
            "tests/allocations/tracers.rs",
            "CaptureKind::Io => CaptureData::Io(disk_io()),",
            "        CaptureKind::OffCpu => CaptureData::OffCpu(Profile::default()),",
        ),
        (
            "tests/allocations/captures.rs",
            "CaptureKind::Io => CaptureData::Io(disk_io(arena)),",
            "        CaptureKind::OffCpu => CaptureData::OffCpu(fold(arena, 99, Stacks::new().rows(10_000))),",
        ),
        (
            "tests/allocations/captures.rs",
            "CaptureData::Io(io) => io.devices[0].processes.left_out(),",
            "        CaptureData::OffCpu(profile) => profile.flame.left_out(),",
        ),
    ],
    words: &[
        (
            "src/capture/table.rs",
            "use super::{io, names, resident,",
            "use super::{io, names, offcpu, resident,",
        ),
        // Of a kind of its own.
        ("src/capture/offcpu.rs", "CaptureData::Stacks(", "CaptureData::OffCpu("),
    ],
};

const OUTPUT: Addition = Addition {
    page: "docs/how-to-add-an-output.md",
    files: &[("copies.rs", "src/copies.rs")],
    lines: &[
        ("src/lib.rs", "pub mod control;", "pub mod copies;"),
        ("src/agent/outputs.rs", "use crate::control::OutputStatus;", "use crate::copies;"),
    ],
    words: &[
        ("src/agent/outputs.rs", "&[ship::OUTPUT];", "&[ship::OUTPUT, copies::OUTPUT];"),
        (
            "tests/purity/main.rs",
            "; 9] = [\n    (\"http\"",
            "; 10] = [\n    (\"copies\", &[\"output\"]),\n    (\"http\"",
        ),
    ],
};

/// What makes the examples part of the tests of the tree as it is, and what those tests expect instead.
const INCLUDED: [(&str, &str, &str); 5] = [
    ("src/tracer/mod.rs", "#[cfg(test)]\n#[path = \"../../docs/example/reclaim.rs\"]\nmod reclaim;\n", ""),
    ("src/capture/mod.rs", "#[cfg(test)]\n#[path = \"../../docs/example/offcpu.rs\"]\nmod offcpu;\n", ""),
    ("src/agent/outputs.rs", "#[cfg(test)]\n#[path = \"../../docs/example/copies.rs\"]\nmod copies;\n", ""),
    ("src/capture/tests/table.rs", "let CaptureData::Stacks(profile)", "let CaptureData::OffCpu(profile)"),
    (
        "build.rs",
        "; 3] =\n    [(\"bpf\", \"\"), (\"docs/example\", \"#[cfg(test)]\"), (",
        "; 2] =\n    [(\"bpf\", \"\"), (",
    ),
];

#[test]
fn what_the_pages_say_is_all_that_a_tracer_a_capture_and_an_output_take() {
    let copy = Copy::of_the_tree();
    for (file, words, none) in INCLUDED {
        copy.replace(file, words, none);
    }
    copy.git(&["init", "--quiet"]);
    copy.commit();
    for addition in [TRACER, CAPTURE, OUTPUT] {
        let diffstat = copy.add(&addition);
        hold_the_page_to(addition.page, &diffstat);
    }
    let tests = ["tracer::", "capture::tests::table", "agent::outputs", "agent::hooks", "fuzz::"];
    copy.cargo(&[&["test", "--locked", "--lib", "--"], &tests[..]].concat());
    copy.cargo(&["test", "--locked", "--test", "purity"]);
    let config = copy.onset(&["config"]);
    assert!(config.contains("[tracer.reclaim]") && config.contains("slow = "), "{config}");
    let doctor = copy.onset(&["doctor"]);
    assert!(doctor.contains("reclaim"), "{doctor}");
}

/// A copy of the tree, as a repository of its own.
struct Copy(PathBuf);

impl Copy {
    fn of_the_tree() -> Copy {
        let copy = Copy(Path::new(env!("CARGO_TARGET_TMPDIR")).join("additions"));
        if copy.0.exists() {
            fs::remove_dir_all(&copy.0).expect("the copy of the last run is removed");
        }
        for name in ["Cargo.toml", "Cargo.lock", "build.rs", "rustfmt.toml"] {
            copy.take(Path::new(name));
        }
        for folder in ["src", "build", "bpf", "docs", "benches", "tests", "fuzz/corpus", "deploy"] {
            copy.take_all(Path::new(folder));
        }
        copy
    }

    fn take(&self, file: &Path) {
        let to = self.0.join(file);
        fs::create_dir_all(to.parent().expect("it is below the copy")).expect("a folder");
        fs::copy(tree().join(file), to).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }

    fn take_all(&self, folder: &Path) {
        for entry in fs::read_dir(tree().join(folder)).expect("a folder of the tree") {
            let entry = entry.expect("an entry");
            let below = folder.join(entry.file_name());
            if entry.file_type().expect("its type").is_dir() {
                self.take_all(&below)
            } else {
                self.take(&below)
            }
        }
    }

    /// Does what the page says. What it comes to.
    fn add(&self, addition: &Addition) -> String {
        for (from, to) in addition.files {
            fs::copy(self.0.join("docs/example").join(from), self.0.join(to)).expect("the example is there");
        }
        for (file, behind, line) in addition.lines {
            let found = |text: &str| {
                let behind = format!("{behind}\n");
                assert_eq!(text.matches(&behind).count(), 1, "{file} has one line that ends in {behind}");
                text.replacen(&behind, &format!("{behind}{line}\n"), 1)
            };
            self.edit(file, found);
        }
        for (file, words, others) in addition.words {
            self.replace(file, words, others);
        }
        self.git(&["add", "--all"]);
        let diffstat = self.git(&["diff", "--cached", "--stat=80", "--stat-graph-width=20"]);
        self.commit();
        // A name that is cut short, or a line's end, is no fact.
        diffstat.lines().map(|line| format!("{}\n", line.trim())).collect()
    }

    fn replace(&self, file: &str, words: &str, others: &str) {
        self.edit(file, |text| {
            assert_eq!(text.matches(words).count(), 1, "{file} has once: {words}");
            text.replacen(words, others, 1)
        });
    }

    fn edit(&self, file: &str, with: impl FnOnce(&str) -> String) {
        let path = self.0.join(file);
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"));
        fs::write(&path, with(&text)).unwrap_or_else(|error| panic!("{file}: {error}"));
    }

    fn commit(&self) {
        self.git(&["add", "--all"]);
        let who = ["-c", "user.name=onset", "-c", "user.email=onset@localhost", "-c", "commit.gpgsign=false"];
        self.git(&[&who[..], &["commit", "--quiet", "--message", "step"]].concat());
    }

    fn git(&self, arguments: &[&str]) -> String {
        self.run(Command::new("git").args(arguments))
    }

    /// Built beside the tree's own, whose binary stays as it is.
    fn cargo(&self, arguments: &[&str]) -> String {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("additions-target");
        self.run(Command::new(env!("CARGO")).args(arguments).env("CARGO_TARGET_DIR", target))
    }

    fn onset(&self, arguments: &[&str]) -> String {
        self.cargo(&[&["run", "--locked", "--quiet", "--"], arguments].concat())
    }

    /// What it says. It must be content.
    fn run(&self, command: &mut Command) -> String {
        // As in a terminal: what cargo sets for this test is not meant for another package.
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CARGO_PKG")) {
            command.env_remove(name);
        }
        command.env_remove("CARGO_MANIFEST_DIR");
        let output = command.current_dir(&self.0).output().expect("it can be started");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let wrong = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?}: {}\n{said}\n{wrong}", output.status);
        said
    }
}

fn hold_the_page_to(page: &str, diffstat: &str) {
    let path = tree().join(page);
    let text = fs::read_to_string(&path).expect("the page");
    let (head, rest) = text.split_once("```diffstat\n").expect("the page has a diffstat");
    let (shown, tail) = rest.split_once("```").expect("it has an end");
    if std::env::var_os("ONSET_ADDITIONS").is_some_and(|value| value == "write") {
        fs::write(&path, format!("{head}```diffstat\n{diffstat}```{tail}")).expect("the page is written");
    } else {
        assert_eq!(shown, diffstat, "{page}: ONSET_ADDITIONS=write writes what is true");
    }
}

fn tree() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

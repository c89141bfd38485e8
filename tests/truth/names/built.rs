//! The programs whose functions are named: in C, Rust and Go, with and without symbols, made at run time,
//! one that becomes another, one that changes its name.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::rig::{Folder, command, done};

pub struct Built {
    pub folder: Folder,
    pub programs: Vec<Program>,
}

/// One process of which it is known what it runs.
pub struct Program {
    /// The name of its process, in the end.
    pub comm: &'static str,
    /// Where it is nearly all the time.
    pub hot: &'static str,
    /// What else calls that.
    callers: &'static [&'static str],
    /// What its file has, and its libraries, by `nm`; never what is there to be mistaken for another.
    symbols: BTreeSet<String>,
    arguments: Vec<String>,
    file: PathBuf,
    /// It is what another becomes, and is not started by itself.
    pub begun_by_another: bool,
    /// Whether anything on the machine knows the names of its functions.
    pub nameable: bool,
    /// Whether perf finds them.
    pub perf_names: bool,
}

/// What is built: the process's name, the function that burns, its callers.
struct Plan {
    comm: &'static str,
    hot: &'static str,
    callers: &'static [&'static str],
}

const fn plan(comm: &'static str, hot: &'static str, callers: &'static [&'static str]) -> Plan {
    Plan { comm, hot, callers }
}

const OF_RUST: [&str; 2] = ["<n_rust::deep::Work<u32>>::middle", "n_rust::outer"];
const OF_GO: [&str; 2] = ["main.middle", "main.outer"];

impl Program {
    fn new(plan: &Plan, file: PathBuf) -> Program {
        let symbols = symbols(&file);
        let Plan { comm, hot, callers } = *plan;
        let arguments = Vec::new();
        Program {
            comm,
            hot,
            callers,
            symbols,
            arguments,
            file,
            begun_by_another: false,
            nameable: true,
            perf_names: true,
        }
    }

    fn with(mut self, arguments: &[&str]) -> Program {
        self.arguments = arguments.iter().map(|it| (*it).to_owned()).collect();
        self
    }

    pub fn command(&self) -> Command {
        let mut command = command(&self.file);
        command.args(&self.arguments);
        command
    }

    /// Whether it may be in a function of this name.
    pub fn may_run(&self, name: &str) -> bool {
        name == self.hot || self.callers.contains(&name) || self.symbols.contains(name)
    }
}

/// Functions of a file and of its libraries that it may run when it starts: without what is named here.
fn symbols(file: &Path) -> BTreeSet<String> {
    let linked = String::from_utf8(crate::rig::run(command("ldd").arg(file)).stdout).unwrap();
    let libraries = linked.split_ascii_whitespace().filter(|word| word.starts_with('/'));
    let own = crate::rig::run(command("nm").args(["-C", "--defined-only"]).arg(file)).stdout;
    let mut texts = vec![String::from_utf8(own).unwrap()];
    for library in libraries {
        texts.push(done(command("nm").args(["-CD", "--defined-only", "--without-symbol-versions", library])));
    }
    let names = texts.iter().flat_map(|text| text.lines()).filter_map(|line| line.splitn(3, ' ').nth(2));
    let traps = ["decoy_", "inner_", "middle_", "outer_"];
    names.filter(|name| !traps.iter().any(|trap| name.starts_with(trap))).map(without_hash).collect()
}

/// A name of Rust's without the hash that its linker needs.
fn without_hash(name: &str) -> String {
    name.rsplit_once("::h").filter(|(_, hash)| hash.len() == 16).map_or(name, |(name, _)| name).to_owned()
}

impl Built {
    pub fn new() -> Built {
        let folder = Folder::new();
        let at = &folder.0;
        let mut programs = Vec::new();
        programs.extend(of_c(at));
        programs.extend(of_others(at));
        programs.extend(made_at_run_time(at));
        Built { folder, programs }
    }

    pub fn started(&self) -> impl Iterator<Item = &Program> {
        self.programs.iter().filter(|program| !program.begun_by_another)
    }

    /// The program whose process has this name.
    pub fn of_comm(&self, comm: &str) -> Option<&Program> {
        self.programs.iter().find(|program| program.comm == comm)
    }
}

/// A chain of functions with this word in their names.
fn chain(at: &Path, comm: &str, word: &str, flags: &[&str]) -> PathBuf {
    let source = at.join("chain.c");
    std::fs::write(&source, include_str!("../programs/chain.c")).unwrap();
    let file = at.join(comm);
    let mut cc = command("cc");
    cc.args(["-O1", "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls"]).arg(format!("-DNAME={word}"));
    done(cc.args(flags).arg("-o").arg(&file).arg(&source));
    file
}

/// Without a build id, and all of them at the same addresses.
const ALIKE: [&str; 3] = ["-static", "-no-pie", "-Wl,--build-id=none"];

fn of_c(at: &Path) -> Vec<Program> {
    const IDENTIFIED: [&str; 1] = ["-Wl,--build-id"];
    let dynamic = plan("n_dynamic", "inner_dynamic", &["middle_dynamic", "outer_dynamic"]);
    let one = plan("n_one", "inner_one", &["middle_one", "outer_one"]);
    let other = plan("n_other", "inner_other", &["middle_other", "outer_other"]);
    let twin = plan("n_twin", "inner_twin", &["middle_twin", "outer_twin"]);
    let bare = plan("n_bare", "inner_twin", &["middle_twin", "outer_twin"]);
    let first = plan("n_first", "inner_first", &["middle_first", "outer_first"]);
    let second = plan("n_second", "inner_second", &["middle_second", "outer_second"]);
    let named = plan("n_newname", "inner_named", &["middle_named", "outer_named"]);
    let twin_file = chain(at, "n_twin", "twin", &IDENTIFIED);
    let bare_file = at.join("n_bare");
    done(command("strip").arg("-o").arg(&bare_file).arg(&twin_file));
    let twin = Program::new(&twin, twin_file);
    let second_file = chain(at, "n_second", "second", &ALIKE);
    let second_path = second_file.display().to_string();
    let mut all = vec![
        Program::new(&dynamic, chain(at, "n_dynamic", "dynamic", &IDENTIFIED)),
        Program::new(&one, chain(at, "n_one", "one", &ALIKE)),
        Program::new(&other, chain(at, "n_other", "other", &ALIKE)),
        // Before the one that has the same build id and names.
        Program { perf_names: false, symbols: twin.symbols.clone(), ..Program::new(&bare, bare_file) },
        twin,
        Program::new(&first, chain(at, "n_first", "first", &ALIKE)).with(&["exec", &second_path]),
    ];
    let renamed =
        Program::new(&named, chain(at, "n_oldname", "named", &IDENTIFIED)).with(&["rename", "n_newname"]);
    // perf tells samples before and after by two names.
    all.push(Program { perf_names: false, ..renamed });
    all.push(Program { begun_by_another: true, ..Program::new(&second, second_file) });
    all
}

fn of_others(at: &Path) -> Vec<Program> {
    let rust = plan("n_rust", "n_rust::inner", &OF_RUST);
    let go = plan("n_go", "main.inner", &OF_GO);
    let bare = plan("n_gobare", "main.inner", &OF_GO);
    let (rust_file, go_file, bare_file) = (at.join("n_rust"), at.join("n_go"), at.join("n_gobare"));
    let source = |name: &str, text: &str| {
        let source = at.join(name);
        std::fs::write(&source, text).unwrap();
        source
    };
    let of_rust = source("n_rust.rs", include_str!("../programs/chain.rs"));
    let mut rustc = command("rustc");
    rustc.args(["--edition", "2024", "-O", "-C", "force-frame-pointers=yes"]);
    done(rustc.arg("-o").arg(&rust_file).arg(of_rust));
    let of_go = source("chain.go", include_str!("../programs/chain.go"));
    for (file, flags) in [(&go_file, ""), (&bare_file, "-s -w")] {
        let mut go = command("go");
        if ["HOME", "GOCACHE", "XDG_CACHE_HOME"].iter().all(|name| std::env::var_os(name).is_none()) {
            go.env("GOCACHE", at.join("gocache")); // it builds nothing without one
        }
        done(go.args(["build", "-ldflags", flags, "-o"]).arg(file).arg(&of_go));
    }
    // Go's own table of functions has names of what is stripped, too; nm does not read it.
    let bare = Program::new(&bare, bare_file);
    let of_go = Program::new(&go, go_file);
    let bare = Program { nameable: false, perf_names: false, symbols: of_go.symbols.clone(), ..bare };
    vec![Program::new(&rust, rust_file), of_go, bare]
}

/// Code of which only a perf map knows: perf itself looks for one in the first two kinds of memory.
fn made_at_run_time(at: &Path) -> Vec<Program> {
    let kinds = [
        (plan("n_jitanon", "jitted_anon", &["main"]), "anon"),
        (plan("n_jitnamed", "jitted_named", &["main"]), "named"),
        (plan("n_jitheap", "jitted_heap", &["main"]), "heap"),
        (plan("n_jitmemfd", "jitted_memfd", &["main"]), "memfd"),
    ];
    let source = at.join("jit.c");
    std::fs::write(&source, include_str!("../programs/jit.c")).unwrap();
    let one = |(plan, kind): &(Plan, &str)| {
        let file = at.join(plan.comm);
        done(command("cc").args(["-O1", "-fno-omit-frame-pointer", "-o"]).arg(&file).arg(&source));
        let program = Program::new(plan, file).with(&[kind, plan.hot]);
        Program { perf_names: *kind == "anon", ..program }
    };
    kinds.iter().map(one).collect()
}

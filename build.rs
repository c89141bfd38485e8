//! Compiles every bpf/*.bpf.c to a skeleton: adding a program adds no line here. One that has a
//! ring `events` is a hook, and is found by its file's name.

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

use libbpf_cargo::SkeletonBuilder;

const SUFFIX: &str = ".bpf.c";

/// What the definition of a hook's ring ends with.
const RING: &str = "} events SEC(\".maps\");";

fn main() -> ExitCode {
    match generate() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // As text: clang's words come over several lines.
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn generate() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=bpf");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    let (mut modules, mut hooks) = (String::new(), String::new());
    for source in sources(Path::new("bpf"))? {
        let file = source.file_name().and_then(|name| name.to_str()).ok_or("a file name in UTF-8")?;
        let name = file.trim_end_matches(SUFFIX);
        let skeleton = out.join(format!("{name}.skel.rs"));
        SkeletonBuilder::new()
            .source(&source)
            .clang_args(["-Wall", "-Werror"])
            .build_and_generate(&skeleton)
            .map_err(|error| format!("{error:#}; clang 14 or later is needed"))?;
        writeln!(
            modules,
            "#[allow(warnings, missing_docs, clippy::all, clippy::undocumented_unsafe_blocks, clippy::unwrap_used)]\n\
             pub mod {name} {{ include!({skeleton:?}); }}"
        )?;
        if fs::read_to_string(&source)?.contains(RING) {
            write!(hooks, "{name}: {}SkelBuilder, ", camel(name))?;
        }
    }
    writeln!(
        modules,
        "/// Gives a macro the name and the skeleton of each hook.\n\
         macro_rules! each_hook {{ ($take:ident) => {{ $take! {{ {hooks} }} }}; }}\n\
         pub(super) use each_hook;"
    )?;
    fs::write(out.join("skeletons.rs"), modules)?;
    Ok(())
}

/// As libbpf-cargo names what it makes.
fn camel(name: &str) -> String {
    let part = |part: &str| {
        let mut letters = part.chars();
        letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect::<String>()
    };
    name.split('_').map(part).collect()
}

/// The programs, in an order that does not depend on the directory's.
fn sources(dir: &Path) -> Result<Vec<PathBuf>, std::io::Error> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.to_str().is_some_and(|path| path.ends_with(SUFFIX)) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

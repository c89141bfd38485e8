//! Compiles every bpf/*.bpf.c to a skeleton: adding a program adds no line here.

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

use libbpf_cargo::SkeletonBuilder;

const SUFFIX: &str = ".bpf.c";

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
    let mut modules = String::new();
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
    }
    fs::write(out.join("skeletons.rs"), modules)?;
    Ok(())
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

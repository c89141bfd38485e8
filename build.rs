//! Compiles every bpf/*.bpf.c to a skeleton: adding a program adds no line here. One that has a
//! ring `events` is a hook, and is found by its file's name.

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

use libbpf_cargo::SkeletonBuilder;
use libbpf_rs::Linker;

const SUFFIX: &str = ".bpf.c";

/// Where `struct btf_ext_header` says how long the lines are.
const LINE_INFO_LEN: usize = 20;

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
        let (object, skeleton) = (out.join(format!("{name}.o")), out.join(format!("{name}.skel.rs")));
        let mut builder = SkeletonBuilder::new();
        builder.source(&source).obj(&object).clang_args(["-Wall", "-Werror"]);
        builder.build().map_err(|error| format!("{error:#}; clang 14 or later is needed"))?;
        // Who debugs a program reads the verifier's log with its lines; a release has no use for them.
        if env::var("PROFILE").as_deref() == Ok("release") {
            drop_lines(&object).map_err(|error| format!("{}: {error}", object.display()))?;
        }
        builder.generate(&skeleton)?;
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

/// Takes the source's lines out of an object, a third of it: the linker copies no more than what is told of.
fn drop_lines(object: &Path) -> Result<(), Box<dyn Error>> {
    let mut bytes = fs::read(object)?;
    let info = section(&bytes, ".BTF.ext").ok_or("it has no .BTF.ext")?;
    let len = bytes.get_mut(info + LINE_INFO_LEN..).and_then(<[u8]>::first_chunk_mut);
    *len.ok_or("its .BTF.ext is cut short")? = 0_u32.to_ne_bytes();
    let mut linker = Linker::new(object)?;
    linker.add_buf(&bytes)?;
    Ok(linker.link()?)
}

/// Where a section of a 64-bit ELF file begins.
fn section(elf: &[u8], wanted: &str) -> Option<usize> {
    let number = |at: usize| Some(u64::from_ne_bytes(*elf.get(at..)?.first_chunk()?));
    let place = |at: usize| usize::try_from(number(at)?).ok();
    let half = |at: usize| Some(usize::from(u16::from_ne_bytes(*elf.get(at..)?.first_chunk()?)));
    // Elf64_Ehdr: e_shoff, e_shentsize, e_shnum, e_shstrndx.
    let (table, each, many, names) = (place(0x28)?, half(0x3a)?, half(0x3c)?, half(0x3e)?);
    let header = |index: usize| table + index * each;
    // Elf64_Shdr: the low half of the first word is sh_name; sh_offset.
    let offset = |index: usize| place(header(index) + 0x18);
    let name = |index: usize| {
        let at = offset(names)? + usize::try_from(number(header(index))? & u64::from(u32::MAX)).ok()?;
        elf.get(at..)?.split(|byte| *byte == 0).next()
    };
    (0..many).find(|index| name(*index) == Some(wanted.as_bytes())).and_then(offset)
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

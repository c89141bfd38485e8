//! Compiles every bpf/*.bpf.c to a skeleton: adding a program adds no line here. An object that has a
//! ring buffer `events` is a hook: it is listed by its file's name, with the variables that it can be given.
//! What each object shares with userspace is laid out in Rust, too (build/layouts.rs). The programs of
//! docs/example, and those that tests have, are compiled the same way, for tests alone.

#[path = "build/layouts.rs"]
mod layouts;
#[path = "build/rust.rs"]
mod rust;

use std::error::Error;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

use libbpf_cargo::SkeletonBuilder;
use libbpf_rs::btf::Btf;
use libbpf_rs::btf::types::{DataSec, Var};
use libbpf_rs::{AsRawLibbpf as _, Linker, MapType, ObjectBuilder, OpenObject};

use layouts::{Layouts, Source};

const SUFFIX: &str = ".bpf.c";

/// Where the programs are, and the attribute of what is made of them.
const FOLDERS: [(&str, &str); 3] =
    [("bpf", ""), ("docs/example", "#[cfg(test)]"), ("src/layout", "#[cfg(test)]")];

/// The ring that makes an object a hook.
const RING: &str = "events";

/// What src/bpf/hook.rs relies on in each hook, with the header that brings it.
const MAPS: [(&str, &str); 2] = [("containers", "common.h"), ("lost", "lost.h")];

/// Where `struct btf_ext_header` says how long the lines are.
const LINE_INFO_LEN: usize = 20;

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
    println!("cargo:rerun-if-changed=build");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    let mut made = Made::default();
    for (folder, attribute) in FOLDERS {
        println!("cargo:rerun-if-changed={folder}");
        for source in sources(Path::new(folder))? {
            made.add(&source, attribute, &out)?;
        }
    }
    let Made { mut skeletons, hooks, layouts, .. } = made;
    writeln!(
        skeletons,
        "/// The hooks by their files' names.\npub(super) static HOOKS: &[super::hook::Program] = &[{hooks}];"
    )?;
    fs::write(out.join("skeletons.rs"), skeletons)?;
    fs::write(out.join("layouts.rs"), layouts)?;
    Ok(())
}

/// What was made of the programs.
#[derive(Default)]
struct Made {
    /// A module for each object.
    skeletons: String,
    /// The items of `HOOKS`.
    hooks: String,
    /// A module for each object, with what it shares.
    layouts: String,
    /// The same of those that are part of the agent.
    shared: Vec<(String, Layouts)>,
}

impl Made {
    /// Compiles a program, and adds what is made of it.
    fn add(&mut self, source: &Path, attribute: &str, out: &Path) -> Result<(), Box<dyn Error>> {
        let name = source.file_name().and_then(|name| name.to_str()).ok_or("a file name in UTF-8")?;
        let name = name.trim_end_matches(SUFFIX);
        let (object, skeleton) = (out.join(format!("{name}.bpf.o")), out.join(format!("{name}.skel.rs")));
        let mut builder = SkeletonBuilder::new();
        builder.source(source).obj(&object).clang_args(["-Wall", "-Werror", "-Ibpf"]);
        builder.build().map_err(|error| format!("{error:#}; clang 14 or later is needed"))?;
        self.read(&object, name, attribute).map_err(|error| format!("{}: {error}", source.display()))?;
        // Who debugs a program reads the verifier's log with its lines; a release has no use for them.
        if env::var("PROFILE").as_deref() == Ok("release") {
            drop_lines(&object).map_err(|error| format!("{}: {error}", object.display()))?;
        }
        builder.generate(&skeleton)?;
        writeln!(
            self.skeletons,
            "{attribute}\n\
             #[allow(warnings, missing_docs, clippy::all, clippy::undocumented_unsafe_blocks, clippy::unwrap_used)]\n\
             pub mod {name} {{ include!({skeleton:?}); }}"
        )?;
        Ok(())
    }

    /// Adds what an object shares with userspace, and how it is loaded if it is a hook.
    fn read(&mut self, object: &Path, name: &str, attribute: &str) -> Result<(), Box<dyn Error>> {
        let open = ObjectBuilder::default().open_file(object)?;
        // SAFETY: `open` owns the object, and outlives this reference to it.
        let raw = unsafe { open.as_libbpf_object().as_ref() };
        let btf = Btf::from_bpf_object(raw)?.ok_or("it has no BTF")?;
        let layouts = layouts::of(&btf, &record_sources(&open))?;
        let module = rust::module(&layouts, &self.shared)?;
        let what = "/// What it shares; much of it with itself alone.\n#[allow(unused, clippy::all)]";
        writeln!(self.layouts, "{attribute}\n{what}\npub mod {name} {{\n{module}}}")?;
        if is_hook(&open)? {
            let (variables, bytes) = (variables(&btf)?, layouts::longest(&btf, &layouts, RING));
            writeln!(
                self.hooks,
                "{attribute} super::hook::Program {{ name: {name:?}, what: \"the {name} program\", \
                 object: include_bytes!({object:?}), variables: &[{variables}], record_bytes: {bytes} }},"
            )?;
        }
        if attribute.is_empty() {
            self.shared.push((name.to_owned(), layouts));
        }
        Ok(())
    }
}

/// The ring buffers and iterators of an object.
fn record_sources(open: &OpenObject) -> Vec<Source> {
    let name = |name: &OsStr| name.to_string_lossy().into_owned();
    let rings = open.maps().filter(|map| map.map_type() == MapType::RingBuf);
    let rings = rings.map(|map| Source { name: name(map.name()), what: "the ring buffer" });
    let iterators = open.progs().filter(|program| program.section().to_string_lossy().starts_with("iter/"));
    let iterators = iterators.map(|program| Source { name: name(program.name()), what: "the iterator" });
    rings.chain(iterators).collect()
}

/// Whether an object is a hook. An error: it is meant to be one, and lacks something.
fn is_hook(open: &OpenObject) -> Result<bool, Box<dyn Error>> {
    let maps: Vec<_> = open.maps().map(|map| (map.name().to_owned(), map.map_type())).collect();
    let has = |wanted: &str| maps.iter().find(|(name, _)| name.to_str() == Some(wanted));
    match has(RING) {
        Some((_, MapType::RingBuf)) => {}
        Some((_, other)) => {
            return Err(format!("the map `{RING}` is for a hook's records: it must be a ring buffer, not {other:?}; give another map another name").into());
        }
        None => return Ok(false),
    }
    match MAPS.into_iter().find(|(map, _)| has(map).is_none()) {
        None => Ok(true),
        Some((map, header)) => Err(format!(
            "it has a ring buffer `{RING}`, so it is a hook, and a hook needs the map `{map}`: use what {header} brings"
        )
        .into()),
    }
}

/// Name, offset and size of each `const volatile` variable of one number, as the items of a list.
fn variables(btf: &Btf<'_>) -> Result<String, Box<dyn Error>> {
    let mut list = String::new();
    let Some(section) = btf.type_by_name::<DataSec<'_>>(".rodata") else { return Ok(list) };
    for place in section.iter() {
        let name = btf.type_by_id::<Var<'_>>(place.ty).and_then(|var| Some(var.name()?.to_str()?.to_owned()));
        if let (Some(name), 1 | 2 | 4 | 8) = (name, place.size) {
            write!(
                list,
                "super::hook::Variable {{ name: {name:?}, offset: {}, size: {} }},",
                place.offset, place.size
            )?;
        }
    }
    Ok(list)
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

/// The programs of a folder, if there is one, in an order that does not depend on the folder's.
fn sources(folder: &Path) -> Result<Vec<PathBuf>, std::io::Error> {
    let mut found = Vec::new();
    if !folder.exists() {
        return Ok(found);
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.to_str().is_some_and(|path| path.ends_with(SUFFIX)) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

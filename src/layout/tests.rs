//! What C lays out is what Rust reads, wherever the fields lie; and what cannot be read is refused, by its name
//! and with what helps.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use libbpf_rs::btf::Btf;
use libbpf_rs::{AsRawLibbpf as _, ObjectBuilder};

use self::layouts::Source;
use super::{first, moved};

#[path = "../../build/layouts.rs"]
mod layouts;
#[path = "../../build/rust.rs"]
mod rust;

/// The constants that an object holds, as its compiler laid them out.
fn constants(object: &[u8]) -> Vec<u8> {
    let open =
        ObjectBuilder::default().name("sample").expect("a name").open_memory(object).expect("an object");
    let section = open.maps().find(|map| map.name().to_string_lossy().ends_with(".rodata"));
    section.and_then(|section| section.initial_value().map(<[u8]>::to_vec)).expect("constants")
}

/// Looks for what `read` makes of the constants at any place that a structure of eight bytes' alignment may have.
fn found<T>(constants: &[u8], read: impl Fn(&[u8]) -> Option<T>, is: impl Fn(&T) -> bool) -> T {
    let places = (0..constants.len()).step_by(8).filter_map(|at| read(constants.get(at..)?));
    let mut found = places.filter(|one| is(one));
    found.next().expect("the sample is among the constants")
}

#[test]
fn a_field_that_moved_in_c_is_read_where_it_has_gone() {
    let before = constants(include_bytes!(concat!(env!("OUT_DIR"), "/first.bpf.o")));
    let after = constants(include_bytes!(concat!(env!("OUT_DIR"), "/moved.bpf.o")));
    let comm = *b"reader\0\0\0\0\0\0\0\0\0\0";
    let (container, stack) = (0x0102_0304_0506_0708, [0xffff_ffff_8100_0000, 17, 0, 0, 0, 0, 0, 0]);
    let read = |bytes: &[u8]| first::Reading::read(bytes).map(|(one, rest)| (one, rest.to_vec()));
    let (one, rest) = found(&before, read, |(one, _)| one.container == container);
    let want =
        first::Reading { container, delta: -5, count: 515, kind: 7, owner: first::Owner { pid: 4711, comm } };
    assert_eq!(one, want);
    assert!(super::numbers(&rest).take(8).eq(stack), "{rest:?}");
    let read = |bytes: &[u8]| moved::Reading::read(bytes).map(|(one, rest)| (one, rest.to_vec()));
    let (one, rest) = found(&after, read, |(one, _)| one.container == container);
    let owner = moved::Owner { comm, pid: 4711 };
    assert_eq!(one, moved::Reading { r#type: 7, owner, added: 0, count: 515, container, delta: -5 });
    assert!(super::numbers(&rest).take(8).eq(stack), "{rest:?}");
    // Who reads the one as the other reads nonsense: it is no accident that both were right.
    let crossed = first::Reading::read(&moved::Reading::bytes(&one)).map(|(one, _)| one);
    assert_ne!(crossed, Some(want));
}

#[test]
fn what_is_written_is_what_is_read_and_bytes_that_are_missing_make_it_none() {
    let owner = moved::Owner { comm: [b'x'; 16], pid: 1 };
    let one = moved::Reading { r#type: 1, owner, added: 2, count: 3, container: 4, delta: i32::MIN };
    let bytes = one.bytes();
    assert_eq!(moved::Reading::read(&bytes), Some((one, &[][..])));
    for len in 0..bytes.len() {
        assert_eq!(moved::Reading::read(&bytes[..len]), None, "{len} bytes");
    }
    assert_eq!(moved::Reading::WHOLE, bytes.len() + 64);
}

/// A folder that goes away with the test.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What the macros of libbpf's headers and of bpf/common.h stand for.
const MACROS: &str = "
#define SEC(name) __attribute__((section(name), used))
#define RECORD_OF(source, record) struct record *source##__##record SEC(\".records\")
struct ring { int (*type)[27]; };
";

/// What the build says to an object of this source, whose ring buffers are called so.
fn refusal(name: &str, source: &str, rings: &[&str]) -> Option<String> {
    let folder = Folder(std::env::temp_dir().join(format!("onset-layout-{name}-{}", std::process::id())));
    fs::create_dir_all(&folder.0).expect("a folder");
    let (file, object) = (folder.0.join("it.bpf.c"), folder.0.join("it.bpf.o"));
    fs::write(&file, format!("{MACROS}{source}")).expect("a file");
    let clang = Command::new("clang")
        .args(["-target", "bpf", "-g", "-O2", "-c", "-o"])
        .arg(&object)
        .arg(&file)
        .status();
    assert!(clang.expect("clang, which the build needs too").success());
    let sources = rings.iter().map(|ring| Source { name: (*ring).to_owned(), what: "the ring buffer" });
    generated(&object, &sources.collect::<Vec<_>>()).err()
}

fn generated(object: &Path, sources: &[Source]) -> Result<String, String> {
    let open = ObjectBuilder::default().open_file(object).expect("an object");
    // SAFETY: `open` owns the object, and outlives this reference to it.
    let raw = unsafe { open.as_libbpf_object().as_ref() };
    let btf = Btf::from_bpf_object(raw).expect("types").expect("it has types");
    let layouts = layouts::of(&btf, sources)?;
    let longest = layouts.values().map(layouts::Layout::whole).max();
    assert!(sources.iter().map(|source| layouts::longest(&btf, &layouts, &source.name)).max() <= longest);
    rust::module(&layouts, &[])
}

#[test]
fn a_ring_whose_records_are_not_declared_is_refused() {
    let ring = "struct event { int pid; }; struct ring events SEC(\".maps\");\n";
    let said = refusal("undeclared", ring, &["events"]).expect("it is refused");
    assert!(
        said.contains("the ring buffer `events`") && said.contains("RECORD_OF(events, record)"),
        "{said}"
    );
    assert_eq!(refusal("declared", &format!("{ring}RECORD_OF(events, event);"), &["events"]), None);
    let said = refusal("misnamed", &format!("{ring}RECORD_OF(event, event);"), &["events"]);
    let said = said.expect("there is no such ring");
    assert!(said.contains("`event__event`") && said.contains("there are: events"), "{said}");
}

#[test]
fn a_field_that_userspace_cannot_read_is_refused_by_its_name() {
    for (name, field, reason) in [
        ("bits", "unsigned flag : 1;", "cannot read a bit field"),
        ("union", "union { int a; long b; } either;", "cannot read Union"),
        ("double", "double ratio;", "cannot read Float"),
    ] {
        let record = format!("struct event {{ int pid; {field} }}; RECORD_OF(events, event);");
        let said = refusal(name, &record, &["events"]).expect("it is refused");
        assert!(said.contains("struct event, field ") && said.contains(reason), "{said}");
    }
}

#[test]
fn two_structures_with_one_name_in_rust_are_refused() {
    let source = "struct an_event { int a; }; struct anEvent { int a; }; struct AnEvent { int a; };
        RECORD_OF(events, an_event); RECORD_OF(events, AnEvent);";
    let said = refusal("twins", source, &["events"]).expect("it is refused");
    assert!(said.contains("struct an_event and struct AnEvent have one name in Rust"), "{said}");
}

#[test]
fn a_structure_is_another_objects_only_if_all_that_it_holds_is() {
    use layouts::{Field, Kind, Layout, Layouts};
    let of = |inner: &str| -> Layouts {
        let held = Kind::Struct("inner".to_owned(), 8);
        let all = [("inner", Kind::Number(inner.to_owned())), ("outer", held)].map(|(name, kind)| {
            let fields = vec![Field { name: "only".to_owned(), offset: 0, kind }];
            (name.to_owned(), Layout { name: name.to_owned(), fields, head: 8, tail: None })
        });
        all.into()
    };
    let module =
        |inner: &str| rust::module(&of(inner), &[("other".to_owned(), of("u64"))]).expect("it is Rust");
    assert_eq!(module("u64"), "pub use super::other::Inner;\npub use super::other::Outer;\n");
    let own = module("i64");
    assert!(own.contains("pub struct Outer {") && !own.contains("super::other"), "{own}");
}

//! Writes the Rust side of what a BPF object shares with userspace, out of the object's own types: keys and
//! values of its maps, and the records of its ring buffers and iterators, which `RECORD_OF` of bpf/common.h
//! declares. So a layout stands once, in C, and a field that moves there is read where it has gone.

use std::collections::BTreeMap;

use libbpf_rs::btf::types::{Array, DataSec, Enum, Int, IntEncoding, MemberAttr, Struct, Var};
use libbpf_rs::btf::{Btf, BtfKind, BtfType, HasSize as _, TypeId};

/// Where `RECORD_OF` puts its declarations; libbpf loads no section of this name.
const RECORDS: &str = ".records";

/// An array that ends a structure and takes more is handed out as bytes: a record may hold a part of it only.
const INLINE_MAX: usize = 32;

/// What a program writes records into: a ring buffer by its map's name, or an iterator by its program's.
pub struct Source {
    /// The name.
    pub name: String,
    /// What it is.
    pub what: &'static str,
}

/// A structure as C lays it out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Its name in C.
    pub name: String,
    /// Its fields, but for `tail`.
    pub fields: Vec<Field>,
    /// Bytes up to `tail`.
    pub head: usize,
    /// A long array at the end: its name, and its bytes at most.
    pub tail: Option<(String, usize)>,
}

/// A field of a structure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name in C.
    pub name: String,
    /// Its first byte.
    pub offset: usize,
    /// What it holds.
    pub kind: Kind,
}

/// What a field holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A number, by its type in Rust.
    Number(String),
    /// A number of bytes.
    Bytes(usize),
    /// Another structure that has no long array: its name in C, and its bytes.
    Struct(String, usize),
}

/// The structures of an object by their names in C.
pub type Layouts = BTreeMap<String, Layout>;

/// All structures that an object shares, with those that they hold. Each of `sources` must have a record that
/// is declared.
pub fn of(btf: &Btf<'_>, sources: &[Source]) -> Result<Layouts, String> {
    let mut reader = Reader { btf, layouts: Layouts::new() };
    for (_, map) in variables(btf, ".maps") {
        let Ok(definition) = Struct::try_from(map) else { continue };
        for member in
            definition.iter().filter(|member| [Some("key"), Some("value")].contains(&text(member.name)))
        {
            let shared =
                btf.type_by_id::<BtfType<'_>>(member.ty).and_then(|pointer| structure(pointer.next_type()?));
            shared.map(|shared| reader.add(&shared)).transpose()?;
        }
    }
    let records = variables(btf, RECORDS);
    for (declared, pointer) in &records {
        if !sources.iter().any(|source| is_of(declared, &source.name)) {
            let names: Vec<&str> = sources.iter().map(|source| &*source.name).collect();
            return Err(format!(
                "RECORD_OF makes `{declared}`, of no ring buffer or iterator; there are: {}",
                names.join(", ")
            ));
        }
        let shared = pointer.next_type().and_then(structure);
        reader
            .add(&shared.ok_or_else(|| format!("RECORD_OF makes `{declared}`, which is of no structure"))?)?;
    }
    match sources.iter().find(|source| !records.iter().any(|(declared, _)| is_of(declared, &source.name))) {
        None => Ok(reader.layouts),
        Some(Source { name, what }) => Err(format!(
            "nothing says what {what} `{name}` hands to userspace: add `RECORD_OF({name}, record);` for each struct"
        )),
    }
}

/// The bytes that the longest record of a source takes.
pub fn longest(btf: &Btf<'_>, layouts: &Layouts, source: &str) -> usize {
    let records = variables(btf, RECORDS).into_iter().filter(|(declared, _)| is_of(declared, source));
    let names = records.filter_map(|(_, pointer)| name(&*structure(pointer.next_type()?)?));
    names.filter_map(|name| layouts.get(&name)).map(Layout::whole).max().unwrap_or(0)
}

impl Layout {
    /// Bytes with the array at the end.
    pub fn whole(&self) -> usize {
        self.head + self.tail.as_ref().map_or(0, |(_, bytes)| *bytes)
    }
}

/// Reads structures out of an object's types.
struct Reader<'b> {
    btf: &'b Btf<'b>,
    layouts: Layouts,
}

impl Reader<'_> {
    /// Adds a structure, and those that it holds.
    fn add(&mut self, shared: &Struct<'_>) -> Result<Layout, String> {
        let name = name(shared).ok_or("a struct without a name is shared with userspace: name it")?;
        if let Some(known) = self.layouts.get(&name) {
            return Ok(known.clone());
        }
        let mut layout = Layout { name, fields: Vec::new(), head: shared.size(), tail: None };
        for member in shared.iter() {
            let field = text(member.name).unwrap_or_default().to_owned();
            let place = format!("struct {}, field {field}", layout.name);
            let MemberAttr::Normal { offset } = member.attr else {
                return Err(format!("{place}: userspace cannot read a bit field; give it bytes of its own"));
            };
            let offset = usize::try_from(offset / 8).map_err(|error| error.to_string())?;
            layout.fields.push(Field { name: field, offset, kind: self.kind(member.ty, &place)? });
        }
        let long = |field: &mut Field| matches!(field.kind, Kind::Bytes(bytes) if bytes > INLINE_MAX);
        if let Some(Field { name, offset, .. }) = layout.fields.pop_if(long) {
            (layout.head, layout.tail) = (offset, Some((name, shared.size() - offset)));
        }
        self.layouts.insert(layout.name.clone(), layout.clone());
        Ok(layout)
    }

    fn kind(&mut self, id: TypeId, place: &str) -> Result<Kind, String> {
        let found = self.btf.type_by_id::<BtfType<'_>>(id).map(|found| found.skip_mods_and_typedefs());
        let found = found.ok_or_else(|| format!("{place}: it has no type"))?;
        if let Ok(nested) = Struct::try_from(found) {
            let layout = self.add(&nested)?;
            // One with a long array cannot stand within another, but as bytes.
            return Ok(match layout.tail {
                None => Kind::Struct(layout.name, layout.head),
                Some(_) => Kind::Bytes(nested.size()),
            });
        }
        match found.kind() {
            BtfKind::Array => bytes_of(found).map(Kind::Bytes),
            BtfKind::Ptr => Some(Kind::Number("u64".to_owned())),
            _ => number(found).map(Kind::Number),
        }
        .ok_or_else(|| {
            format!("{place}: userspace cannot read {:?}; make it numbers, bytes or a struct", found.kind())
        })
    }
}

/// Bytes of a type whose values can lie in an array.
fn bytes_of(found: BtfType<'_>) -> Option<usize> {
    let found = found.skip_mods_and_typedefs();
    if let Ok(array) = Array::try_from(found) {
        return bytes_of(array.contained_type())?.checked_mul(array.capacity());
    }
    Int::try_from(found)
        .map(|int| int.size())
        .or_else(|found| Struct::try_from(found).map(|found| found.size()))
        .ok()
}

/// The type in Rust of a number.
fn number(found: BtfType<'_>) -> Option<String> {
    let (size, signed) = match Int::try_from(found) {
        Ok(int) => (int.size(), matches!(int.encoding, IntEncoding::Signed)),
        Err(found) => Enum::try_from(found).ok().map(|found| (found.size(), found.is_signed()))?,
    };
    matches!(size, 1 | 2 | 4 | 8).then(|| format!("{}{}", if signed { 'i' } else { 'u' }, size * 8))
}

/// Whether a variable that `RECORD_OF` makes is of this source.
fn is_of(declared: &str, source: &str) -> bool {
    declared.strip_prefix(source).is_some_and(|rest| rest.starts_with("__"))
}

fn text(name: Option<&std::ffi::OsStr>) -> Option<&str> {
    name?.to_str()
}

fn name(of: &BtfType<'_>) -> Option<String> {
    text(of.name()).map(str::to_owned)
}

/// The variables of a section with their types.
fn variables<'b>(btf: &'b Btf<'_>, section: &str) -> Vec<(String, BtfType<'b>)> {
    let Some(section) = btf.type_by_name::<DataSec<'_>>(section) else { return Vec::new() };
    let variable = |id| {
        let variable = btf.type_by_id::<Var<'_>>(id)?;
        Some((name(&variable)?, variable.next_type()?.skip_mods_and_typedefs()))
    };
    section.iter().filter_map(|place| variable(place.ty)).collect()
}

fn structure(of: BtfType<'_>) -> Option<Struct<'_>> {
    Struct::try_from(of.skip_mods_and_typedefs()).ok()
}

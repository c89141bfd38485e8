//! Layouts as Rust: a type for each structure, which is read from bytes and written to them.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use super::layouts::{Field, Kind, Layout, Layouts};

/// The structures of an object, as the items of a module. One that another object has just so, by its module
/// in `elsewhere`, is that one's.
pub fn module(layouts: &Layouts, elsewhere: &[(String, Layouts)]) -> Result<String, String> {
    let (mut text, mut names) = (String::new(), BTreeMap::new());
    for layout in layouts.values() {
        let name = camel(&layout.name);
        if let Some(other) = names.insert(name.clone(), &layout.name) {
            return Err(format!(
                "struct {} and struct {other} have one name in Rust; rename one",
                layout.name
            ));
        }
        let same = elsewhere.iter().find(|(_, others)| is_in(others, &layout.name, layouts));
        let written = match same {
            Some((module, _)) => writeln!(text, "pub use super::{module}::{name};"),
            None => write(layout, &name, &mut text),
        };
        written.map_err(|error| error.to_string())?;
    }
    Ok(text)
}

/// Whether the others have this structure, with all that it holds, as these have it.
fn is_in(others: &Layouts, name: &str, these: &Layouts) -> bool {
    let Some(own) = these.get(name) else { return false };
    let held = own.fields.iter().filter_map(|field| match &field.kind {
        Kind::Struct(held, _) => Some(held),
        Kind::Number(_) | Kind::Bytes(_) => None,
    });
    others.get(name) == Some(own) && held.into_iter().all(|held| is_in(others, held, these))
}

/// Words of Rust that C may name a field by.
const KEYWORDS: [&str; 18] = [
    "as", "async", "await", "box", "dyn", "fn", "gen", "impl", "in", "let", "loop", "match", "mod", "move",
    "ref", "type", "use", "where",
];

/// A field's name as Rust takes it.
fn word(name: &str) -> String {
    if KEYWORDS.contains(&name) { format!("r#{name}") } else { name.to_owned() }
}

/// `file_id` as `FileId`.
fn camel(name: &str) -> String {
    let words = name.split('_').filter_map(|word| Some((word.chars().next()?, word.get(1..)?)));
    words.map(|(first, rest)| format!("{}{rest}", first.to_ascii_uppercase())).collect()
}

fn write(layout: &Layout, name: &str, to: &mut String) -> fmt::Result {
    let Layout { fields, head, tail, .. } = layout;
    writeln!(to, "/// `struct {}`.", layout.name)?;
    writeln!(to, "#[derive(Clone, Copy, Debug, PartialEq, Eq)]\npub struct {name} {{")?;
    for Field { name, offset, kind } in fields {
        writeln!(to, "    /// From byte {offset} on.\n    pub {}: {},", word(name), kind.rust())?;
    }
    writeln!(to, "}}\n\nimpl {name} {{")?;
    match tail {
        None => writeln!(to, "    /// Its bytes.\n    pub const SIZE: usize = {head};\n")?,
        Some((tail, bytes)) => writeln!(
            to,
            "    /// Its bytes up to `{tail}`.\n    pub const SIZE: usize = {head};\n    \
             /// Its bytes where `{tail}` is full.\n    pub const WHOLE: usize = {};\n",
            head + bytes
        )?,
    }
    let rest = tail.as_ref().map_or("what", |(tail, _)| tail);
    writeln!(to, "    /// Reads one, and gives `{rest}` that comes after. `None`: there are too few bytes.")?;
    writeln!(to, "    #[inline]\n    pub fn read(bytes: &[u8]) -> Option<({name}, &[u8])> {{")?;
    writeln!(
        to,
        "        let (head, rest) = bytes.split_first_chunk::<{head}>()?;\n        let read = {name} {{"
    )?;
    for Field { name, offset, kind } in fields {
        writeln!(to, "            {}: {},", word(name), kind.read(*offset))?;
    }
    writeln!(to, "        }};\n        Some((read, rest))\n    }}\n")?;
    writeln!(
        to,
        "    /// Its bytes{}.",
        if tail.is_some() { format!(" up to `{rest}`") } else { String::new() }
    )?;
    writeln!(
        to,
        "    #[inline]\n    pub fn bytes(&self) -> [u8; {head}] {{\n        let mut bytes = [0; {head}];"
    )?;
    for Field { name, offset, kind } in fields {
        writeln!(to, "        super::put(&mut bytes, {offset}, {});", kind.bytes(name))?;
    }
    writeln!(to, "        bytes\n    }}\n}}\n")
}

impl Kind {
    fn rust(&self) -> String {
        match self {
            Kind::Number(number) => number.clone(),
            Kind::Bytes(bytes) => format!("[u8; {bytes}]"),
            Kind::Struct(name, _) => camel(name),
        }
    }

    fn read(&self, offset: usize) -> String {
        match self {
            Kind::Number(number) => format!("{number}::from_ne_bytes(super::part(head, {offset})?)"),
            Kind::Bytes(_) => format!("super::part(head, {offset})?"),
            Kind::Struct(name, bytes) => {
                format!("{}::read(&super::part::<{bytes}>(head, {offset})?)?.0", camel(name))
            }
        }
    }

    fn bytes(&self, field: &str) -> String {
        let field = word(field);
        match self {
            Kind::Number(_) => format!("self.{field}.to_ne_bytes()"),
            Kind::Bytes(_) => format!("self.{field}"),
            Kind::Struct(..) => format!("self.{field}.bytes()"),
        }
    }
}

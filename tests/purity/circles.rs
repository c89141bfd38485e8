//! No circle of imports, at any level of the tree of modules.
//!
//! The rule: siblings, each taken with all that is below it, import one another in no circle. A module is a
//! file; it imports another where a path in its code names an item of that, and an item is its definer's,
//! however many parents re-export it. A parent and what is below it are one house: a parent that uses or
//! re-exports its children, and children that use what their parent defines, are no circle. Code for tests
//! and fuzzing alone is left out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::{imports, root};

/// A module's path below the crate, segment by segment; the crate's own is empty.
type Path = Vec<String>;

/// What a module's code says.
#[derive(Default)]
struct Module {
    /// The paths that it names: whence they count, and their segments.
    paths: Vec<Path>,
    /// What each name that it imports stands for.
    names: BTreeMap<String, Path>,
}

/// The modules of a crate.
#[derive(Default)]
struct Crate {
    modules: BTreeMap<Path, Module>,
}

/// Who imports whom among siblings, with an import that shows it.
type Graph = BTreeMap<String, BTreeMap<String, String>>;

impl Crate {
    /// Reads the module at `path` and all that it declares; `source` gives a module's text.
    fn read(&mut self, path: &Path, source: &dyn Fn(&Path) -> Option<String>) {
        let Some(text) = source(path) else { return };
        let code = without_tests(&bare(&text));
        let (children, names) = (declared(&code), uses(&code));
        let absolute = |found: &str, up: usize| -> Path {
            let mut segments: Vec<&str> = found.split('/').collect();
            let supers = segments.iter().take_while(|segment| **segment == "super").count();
            segments.drain(..supers);
            let base = path.len().saturating_sub(up + supers);
            path.iter().take(base).cloned().chain(segments.into_iter().map(str::to_owned)).collect()
        };
        let mut module = Module::default();
        for (begin, up) in [("crate", path.len()), ("super", 1), ("self", 0)] {
            module.paths.extend(imports(&code, begin).iter().map(|found| absolute(found, up)));
        }
        for (name, found) in names {
            let up = match found.split('/').next() {
                Some("crate") => path.len(),
                Some("self") => 0,
                Some("super") => 1,
                Some(first) if children.iter().any(|child| child == first) => {
                    module.names.insert(name, absolute(&found, 0));
                    continue;
                }
                _ => continue,
            };
            let below = found.split_once('/').map_or("", |(_, below)| below);
            module.names.insert(name, absolute(below, up));
        }
        self.modules.insert(path.clone(), module);
        for child in children {
            self.read(&path.iter().cloned().chain([child]).collect(), source);
        }
    }

    /// The module that defines what a path names: re-exports are followed.
    fn definer(&self, path: &[String], hops: u32) -> Path {
        let mut module = Path::new();
        for (at, segment) in path.iter().enumerate() {
            module.push(segment.clone());
            if self.modules.contains_key(&module) {
                continue;
            }
            module.pop();
            let stands_for = self.modules.get(&module).and_then(|it| it.names.get(segment));
            if let Some(found) = stands_for.filter(|found| hops > 0 && found[..] != path[..=at]) {
                return self.definer(&[found, &path[at + 1..]].concat(), hops - 1);
            }
            break;
        }
        module
    }

    fn graph(&self) -> Graph {
        let mut graph = Graph::new();
        for (from, module) in &self.modules {
            for path in &module.paths {
                let to = self.definer(path, 8);
                let same = from.iter().zip(&to).take_while(|(one, other)| one == other).count();
                if let (Some(_), Some(_)) = (from.get(same), to.get(same)) {
                    let (node, target) = (from[..=same].join("/"), to[..=same].join("/"));
                    let shows = format!("{} imports {}", from.join("/"), path.join("/"));
                    graph.entry(node).or_default().entry(target).or_insert(shows);
                }
            }
        }
        graph
    }
}

/// The circles of a graph: of each module the shortest that it is in, each set of modules once.
fn circles(graph: &Graph) -> Vec<Vec<String>> {
    let mut seen = BTreeSet::new();
    let mut found: Vec<Vec<String>> = graph.keys().filter_map(|node| shortest(graph, node)).collect();
    found.retain(|circle| seen.insert(circle.iter().cloned().collect::<BTreeSet<_>>()));
    found
}

/// The shortest way from a module back to itself.
fn shortest(graph: &Graph, start: &str) -> Option<Vec<String>> {
    let mut ways = vec![vec![start.to_owned()]];
    let mut seen = BTreeSet::new();
    while !ways.is_empty() {
        let mut longer = Vec::new();
        for way in ways {
            for next in graph.get(way.last()?).into_iter().flat_map(BTreeMap::keys) {
                if next == start {
                    return Some(way);
                }
                if seen.insert(next.clone()) {
                    longer.push([&way[..], std::slice::from_ref(next)].concat());
                }
            }
        }
        ways = longer;
    }
    None
}

/// A circle with the import that shows each of its steps.
fn shown(graph: &Graph, circle: &[String]) -> String {
    let steps = circle.iter().zip(circle.iter().cycle().skip(1));
    let lines: Vec<&str> =
        steps.filter_map(|(from, to)| graph.get(from)?.get(to).map(String::as_str)).collect();
    format!("{}:\n    {}", circle.join(" -> "), lines.join("\n    "))
}

/// Code alone: comments, strings and characters are blanks, so that braces and paths in them do not count.
fn bare(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let hashes = rest.strip_prefix('r').map(|raw| raw.len() - raw.trim_start_matches('#').len());
        let raw = hashes.filter(|hashes| rest[1 + hashes..].starts_with('"'));
        let in_a_word = code.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let len = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if let Some(hashes) = raw.filter(|_| !in_a_word) {
            let end = format!("\"{}", "#".repeat(hashes));
            let begin = hashes + 2;
            rest[begin..].find(&end).map_or(rest.len(), |at| begin + at + end.len())
        } else if first == '"' {
            closed(rest, '"')
        } else if first == '\'' && is_character(rest) {
            closed(rest, '\'')
        } else {
            code.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        };
        code.push(' ');
        rest = &rest[len..];
    }
    code
}

/// Whether a quote begins a character; else it is a lifetime's.
fn is_character(text: &str) -> bool {
    let mut chars = text.chars().skip(1);
    matches!((chars.next(), chars.next()), (Some('\\'), _) | (_, Some('\'')))
}

/// The length of what `quote` opens and closes.
fn closed(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// What is left of code without the items that only tests or fuzzing have.
fn without_tests(code: &str) -> String {
    let mut left = String::new();
    let mut rest = code;
    while let Some(at) = ["#[cfg(test)]", "#[cfg(any(test,"].iter().filter_map(|cfg| rest.find(cfg)).min() {
        left.push_str(&rest[..at]);
        let item = &rest[at..];
        let item = &item[item.find(")]").map_or(item.len(), |end| end + 2)..];
        rest = &item[item_len(item)..];
    }
    left + rest
}

/// The length of the first item: to its semicolon, or to the brace that ends it.
fn item_len(code: &str) -> usize {
    let head = code.find(['{', ';']).map_or(code, |end| &code[..end]);
    let is_use = head.split_whitespace().any(|word| word == "use");
    let mut depth = 0_i32;
    for (at, c) in code.char_indices() {
        match c {
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => depth -= 1,
            _ => {}
        }
        if depth == 0 && (c == ';' || c == '}' && !is_use) {
            return at + 1;
        }
    }
    code.len()
}

/// The modules that this one has files for.
fn declared(code: &str) -> Vec<String> {
    let lines = code.lines().map(str::trim).filter_map(|line| line.strip_suffix(';'));
    let names = lines.filter_map(|line| line.split_once("mod ")).filter(|(before, _)| {
        let before = before.trim();
        before.is_empty() || before.starts_with("pub")
    });
    names.map(|(_, name)| name.trim().to_owned()).collect()
}

/// Each name that a `use` brings, with the path that it stands for.
fn uses(code: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for statement in code.split(';') {
        let Some((before, tree)) = statement.rsplit_once("use ") else { continue };
        if before.ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        branch(tree.trim(), "", &mut found);
    }
    found
}

/// Takes a `use` tree apart: `a::{b, c as d, self}`.
fn branch(tree: &str, prefix: &str, found: &mut Vec<(String, String)>) {
    let join = |name: &str| if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") };
    let tree = tree.trim();
    if let Some(group) = tree.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        let mut depth = 0_i32;
        for part in group.split(|c: char| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            c == ',' && depth == 0
        }) {
            branch(part, prefix, found);
        }
    } else if let Some((name, below)) = tree.split_once("::") {
        branch(below, &join(name.trim()), found);
    } else if let Some((name, alias)) = tree.split_once(" as ") {
        found.push((alias.trim().to_owned(), join(name.trim())));
    } else if tree == "self" {
        let name = prefix.rsplit('/').next().unwrap_or(prefix);
        found.push((name.to_owned(), prefix.to_owned()));
    } else if !tree.is_empty() {
        found.push((tree.to_owned(), join(tree)));
    }
}

fn of_sources(source: &dyn Fn(&Path) -> Option<String>) -> Graph {
    let mut all = Crate::default();
    all.read(&Path::new(), source);
    all.graph()
}

#[test]
fn modules_import_one_another_in_no_circle() {
    let graph = of_sources(&|path| {
        let file = path.iter().fold(root(), |folder, segment| folder.join(segment));
        let places = [root().join("lib.rs"), file.with_extension("rs"), file.join("mod.rs")];
        let place = if path.is_empty() { &places[..1] } else { &places[1..] };
        place.iter().find_map(|place| fs::read_to_string(place).ok())
    });
    assert!(graph.len() > 60, "{} modules import a sibling: are the sources where they were?", graph.len());
    let found: Vec<String> = circles(&graph).iter().map(|circle| shown(&graph, circle)).collect();
    assert!(found.is_empty(), "circles of imports:\n{}", found.join("\n"));
}

/// The circles of a crate that is these modules, by their paths and texts.
fn in_modules(modules: &[(&str, &str)]) -> Vec<String> {
    let graph = of_sources(&|path| {
        let path = path.join("/");
        modules.iter().find(|(name, _)| *name == path).map(|(_, text)| (*text).to_owned())
    });
    circles(&graph).iter().map(|circle| shown(&graph, circle)).collect()
}

#[test]
fn an_import_circle_is_found_in_every_form_of_use() {
    let closing = [
        "use crate::{one::One, c};",
        "use super::one::{self};",
        "fn f() { super::one::g(); }",
        "use super::{nothing, one::{\n    One as Other,\n}};",
        "use super::One;",
        "use crate::Renamed;",
        "fn braces() { [\"{\", r#\"}\"{\"#, \"// \\\" {\"]; let c = '{'; }\nuse crate::one;",
        "#[cfg(test)]\nmod tests {\n    use crate::c;\n}\nuse crate::one;",
        "// a comment's {\nmod below;",
    ];
    for text in closing {
        let modules = [
            ("", "mod one;\npub mod two;\nmod c;\npub use one::One;\npub(crate) use one::One as Renamed;"),
            ("one", "use crate::two;"),
            ("two", text),
            ("two/below", "pub use crate::one::One;"),
            ("c", ""),
        ];
        let found = in_modules(&modules);
        assert!(
            matches!(&found[..], [one] if one.starts_with("one -> two:\n    one imports two\n")),
            "{text}: {found:?}"
        );
    }
}

#[test]
fn imports_between_parent_and_child_and_in_tests_are_no_circle() {
    let modules = [
        ("", "pub mod one;\npub mod two;\npub use one::child::Item;\n#[cfg(test)]\nmod tests;"),
        ("one", "pub mod child;\nuse child::Item;\npub struct Own;"),
        ("one/child", "use super::Own;\nuse crate::two::Two;\npub struct Item;"),
        (
            "two",
            "#[cfg(any(test, feature = \"fuzz\"))]\npub use crate::one::{Own, child};\n// crate::one::Own\n#[cfg(test)]\nmod tests {\n    use crate::one::Own;\n}\npub struct Two;",
        ),
        ("tests", "use crate::one::Own;"),
    ];
    assert_eq!(in_modules(&modules), Vec::<String>::new());
}

//! A flame graph in the formats that others read: folded lines (flamegraph.pl and its kin),
//! speedscope's JSON, and an SVG that stands by itself.

use std::collections::HashMap;
use std::io::{self, Write};

use inferno::flamegraph::color::{MultiPalette, Palette};
use inferno::flamegraph::{self, Options};
use serde::Serialize;

use super::Tree;

/// Writes a line a stack: `comm;outer;inner 12`.
pub fn folded(tree: &Tree<'_>, to: &mut impl Write) -> io::Result<()> {
    tree.each_stack(|stack, samples| {
        for (depth, node) in stack.iter().enumerate() {
            let part = if depth == 0 { "" } else { ";" };
            write!(to, "{part}{}", frame(node.label))?;
        }
        writeln!(to, " {samples}")
    })
}

/// A label as folded lines can hold it, which have no escapes: `;` parts frames, a number after
/// a space ends the line, `#` begins a comment. XML, to which they may go, knows no control characters.
fn frame(label: &str) -> String {
    let mut frame: String = label.trim().chars().map(printable).collect();
    if frame.is_empty() || frame.starts_with('#') {
        frame.insert(0, '?');
    }
    while let Some((head, tail)) = frame.rsplit_once(' ')
        && tail.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
    {
        frame = format!("{head}_{tail}");
    }
    frame
}

fn printable(letter: char) -> char {
    match letter {
        ';' => ':',
        '\u{fffe}' | '\u{ffff}' => '?',
        control if control.is_control() => '?',
        letter => letter,
    }
}

/// Writes an SVG with the script that zooms and searches in it. The same tree gives the same bytes.
pub fn svg(tree: &Tree<'_>, title: &str, to: &mut impl Write) -> io::Result<()> {
    let mut text = Vec::new();
    folded(tree, &mut text)?;
    let text = String::from_utf8(text).map_err(io::Error::other)?;
    let mut options = Options::default();
    options.title = title.chars().map(printable).collect();
    // The palette that tells kernel functions (`_[k]`) from others.
    options.colors = Palette::Multi(MultiPalette::Java);
    options.deterministic = true;
    flamegraph::from_lines(&mut options, text.lines(), to)
}

/// Writes a sampled profile after <https://www.speedscope.app/file-format-schema.json>.
pub fn speedscope(tree: &Tree<'_>, title: &str, to: &mut impl Write) -> io::Result<()> {
    let mut numbers: HashMap<&str, usize> = HashMap::new();
    let mut frames = Vec::new();
    let (mut samples, mut weights) = (Vec::new(), Vec::new());
    let mut total = 0;
    tree.each_stack(|stack, weight| {
        let number = |name| {
            *numbers.entry(name).or_insert_with(|| {
                frames.push(Frame { name });
                frames.len() - 1
            })
        };
        samples.push(stack.iter().map(|node| node.label).map(number).collect());
        weights.push(weight);
        total += weight;
        Ok::<(), io::Error>(())
    })?;
    let profile =
        Profile { kind: "sampled", name: title, unit: "none", start: 0, end: total, samples, weights };
    let file = File {
        schema: "https://www.speedscope.app/file-format-schema.json",
        exporter: concat!("onset ", env!("CARGO_PKG_VERSION")),
        name: title,
        active: 0,
        shared: Shared { frames },
        profiles: [profile],
    };
    serde_json::to_writer(&mut *to, &file)?;
    writeln!(to)
}

#[derive(Serialize)]
struct File<'n> {
    #[serde(rename = "$schema")]
    schema: &'static str,
    exporter: &'static str,
    name: &'n str,
    #[serde(rename = "activeProfileIndex")]
    active: usize,
    shared: Shared<'n>,
    profiles: [Profile<'n>; 1],
}

#[derive(Serialize)]
struct Shared<'n> {
    frames: Vec<Frame<'n>>,
}

#[derive(Serialize)]
struct Frame<'n> {
    name: &'n str,
}

#[derive(Serialize)]
struct Profile<'n> {
    #[serde(rename = "type")]
    kind: &'static str,
    name: &'n str,
    unit: &'static str,
    #[serde(rename = "startValue")]
    start: u64,
    #[serde(rename = "endValue")]
    end: u64,
    /// Frame numbers of each stack, outermost first.
    samples: Vec<Vec<usize>>,
    weights: Vec<u64>,
}

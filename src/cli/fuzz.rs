//! What the commands read, as fuzz targets: documents of a log, replies of an agent and of a server,
//! command lines. Nothing of it can steer the terminal that it is shown on.

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::ffi::OsStringExt as _;

use serde_json::Value;

use super::arguments::{Command, ParsedArgs, dispatch};
use super::document::{Document, Envelope};
use super::flame::{Format, draw, nodes};
use super::{COMMANDS, Exit, Failure, es_template, events, show, status, text};
use crate::capture_data::FlameNode;
use crate::control::{Outcome, Status};
use crate::ship::Rejection;
use crate::stacks::Tree;

/// Drawing a larger one takes too long to be done thousands of times.
const NODES_MAX: usize = 128;

/// A record of the log as `events`, `show` and `flame` take it.
pub fn document(data: &[u8]) {
    let envelope = Envelope::read(data).unwrap_or_default();
    assert!(envelope.time().is_none_or(|time| time.to_string().len() == 24));
    let Some(document) = Document::read(data) else { return };
    let line = events::one_line("0123456789abcdef0123456789abcdef", &document);
    assert!(is_plain(&line) && !line.contains('\n'), "{line:?}");
    let mut shown = Vec::new();
    assert!(show::show(&document, &mut shown).is_ok(), "memory can be written");
    check(&shown);
    let nodes = nodes(&document);
    if let Ok(tree) = Tree::check(&nodes)
        && nodes.len() <= NODES_MAX
    {
        drawn(&nodes, &tree, document.text("tracer_time"));
    }
}

/// A flame graph in all formats: each holds all samples.
fn drawn(nodes: &[FlameNode<'_>], tree: &Tree<'_>, title: &str) {
    let samples = nodes.iter().map(|node| u128::from(node.own)).sum::<u128>();
    let [folded, speedscope, svg] = [Format::Folded, Format::Speedscope, Format::Svg]
        .map(|format| draw(format, tree, title).expect("a checked tree is drawn"));
    let folded = String::from_utf8(folded).expect("text");
    let count = |line: &str| line.rsplit_once(' ').and_then(|(_, count)| count.parse::<u128>().ok());
    assert_eq!(folded.lines().map(count).sum::<Option<u128>>(), Some(samples), "{folded:?}");
    assert!(is_plain(&folded), "{folded:?}");
    let speedscope: Value = serde_json::from_slice(&speedscope).expect("JSON");
    let end = speedscope.pointer("/profiles/0/endValue").and_then(Value::as_u64);
    assert_eq!(end.map(u128::from), Some(samples));
    let svg = String::from_utf8(svg).expect("text");
    assert!(svg.trim_end().ends_with("</svg>"), "half a picture");
}

/// What whoever listens on the agent's socket answers.
pub fn agent_reply(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(Outcome::Refused(why)) = serde_json::from_str(&text) {
        assert!(is_plain(&text::line(&why).to_string()));
    }
    let Ok(status) = serde_json::from_str::<Status>(&text) else { return };
    let mut shown = Vec::new();
    assert!(status::show(&status, &mut shown).is_ok(), "memory can be written");
    check(&shown);
    let again = serde_json::to_string(&status).expect("plain fields");
    assert_eq!(serde_json::from_str::<Status>(&again).ok(), Some(status), "what it says is kept");
    if let Ok(note) = serde_json::from_str::<Rejection>(&text) {
        assert!(is_plain(&events::words(&note)));
    }
}

/// What a server that is set up answers.
pub fn es_answer(data: &[u8]) {
    es_template::fuzz(data);
}

/// A command line, an argument a line: a command is called with what it declares, or a sentence says
/// what is wrong.
pub fn command_line(data: &[u8]) {
    let commands: Vec<Command> = COMMANDS.iter().map(|command| Command { run: called, ..*command }).collect();
    let args = data.split(|byte| *byte == b'\n').map(|arg| OsString::from_vec(arg.to_vec()));
    let mut out = Vec::new();
    match dispatch(&commands, std::iter::once("onset".into()).chain(args), &mut out) {
        Ok(_) => check(&out),
        Err(Failure::Usage(words)) => assert!(!words.is_empty()),
        Err(other) => panic!("{other:?}"),
    }
}

/// In a command's place: asks for all that there can be.
fn called(args: &ParsedArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    for option in COMMANDS.iter().flat_map(|command| command.options) {
        let there = args.flag(option.long);
        assert_eq!(args.path(option.long).is_some(), there);
        if option.value.is_some() {
            let text = args.text(option.long);
            assert!(text.as_ref().is_err() || text.is_ok_and(|text| text.is_some() == there));
            let _ = args.number::<u64>(option.long);
            let time = args.read(option.long, crate::config::time);
            assert!(time.is_ok_and(|time| time.is_none() || there) || there);
        }
    }
    writeln!(out, "{}", text::line(args.operand(0)?))?;
    Ok(Exit::Success)
}

fn check(shown: &[u8]) {
    let Ok(text) = std::str::from_utf8(shown) else { panic!("no text") };
    assert!(is_plain(text), "{text:?}");
}

/// Whether nothing but newlines steers a terminal in it.
fn is_plain(text: &str) -> bool {
    let steers = |c: char| c != '\n' && c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c);
    !text.contains(steers)
}

//! `onset check`: says whether the config can be used.

use std::io::Write;
use std::path::Path;

use super::{Command, Exit, Failure, ParsedArgs, text};
use crate::config::DEFAULT_PATH;

pub(super) const COMMAND: Command = Command {
    name: "check",
    about: "Says whether the config can be used, and names every key that is wrong",
    operands: &[],
    options: &[],
    run,
};

fn run(args: &ParsedArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    args.config()?;
    match args.path("config") {
        Some(path) => writeln!(out, "{} can be used", text::line(&path.to_string_lossy()))?,
        None if Path::new(DEFAULT_PATH).exists() => writeln!(out, "{DEFAULT_PATH} can be used")?,
        None => writeln!(out, "there is no {DEFAULT_PATH}: the built-in defaults are used")?,
    }
    Ok(Exit::Success)
}

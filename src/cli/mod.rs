//! The command line: a table of commands, each in a file. Exit codes: 0 success, 1 failure, 2 wrong usage or a bad
//! config. When stdout is closed (`onset events | head`), a command ends silently.

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

mod arguments;
mod check;
mod config;
mod containers;
mod doctor;
mod document;
mod es_template;
mod events;
mod flame;
#[doc(hidden)]
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod run;
mod show;
mod status;
mod text;
mod trigger;
mod verify;

pub use arguments::{Command, Opt, ParsedArgs};

/// All commands, in the order of the usage text.
pub const COMMANDS: &[Command] = &[
    run::COMMAND,
    check::COMMAND,
    config::COMMAND,
    doctor::COMMAND,
    containers::COMMAND,
    status::COMMAND,
    trigger::COMMAND,
    events::COMMAND,
    show::COMMAND,
    flame::COMMAND,
    verify::COMMAND,
    es_template::COMMAND,
];

/// How a command ended that did its work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Exit code 0.
    Success,
    /// Exit code 0, with a note on stderr.
    Note(String),
    /// Exit code 1: the printed result is negative.
    Failure,
}

/// Why a command could not do its work.
#[derive(Debug)]
pub enum Failure {
    /// It was called wrongly. Exit code 2.
    Usage(String),
    /// The config is bad. Exit code 2.
    Config(crate::config::Error),
    /// Anything else, in words. Exit code 1.
    Failed(String),
    /// What it printed could not be written. Exit code 1, or 0 if nobody reads any more.
    Output(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Output(error)
    }
}

impl From<lexopt::Error> for Failure {
    fn from(error: lexopt::Error) -> Failure {
        Failure::Usage(error.to_string())
    }
}

impl From<crate::config::Error> for Failure {
    fn from(error: crate::config::Error) -> Failure {
        Failure::Config(error)
    }
}

impl From<crate::log::Error> for Failure {
    fn from(error: crate::log::Error) -> Failure {
        Failure::Failed(error.to_string())
    }
}

impl From<crate::control::Error> for Failure {
    fn from(error: crate::control::Error) -> Failure {
        Failure::Failed(error.to_string())
    }
}

/// Runs a command line; the first argument is the program's name.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut out = io::BufWriter::new(io::stdout().lock());
    ExitCode::from(perform(args, &mut out, &mut io::stderr()))
}

fn perform(args: impl IntoIterator<Item = OsString>, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let done = arguments::dispatch(COMMANDS, args, out).and_then(|done| {
        out.flush()?;
        Ok(done)
    });
    let (words, code) = match done {
        Ok(Exit::Success) => return 0,
        Ok(Exit::Failure) => return 1,
        Ok(Exit::Note(words)) => (format!("onset: {}", text::line(&words)), 0),
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => return 0,
        Err(Failure::Output(error)) => (format!("onset: cannot write: {error}"), 1),
        Err(Failure::Usage(words)) => (format!("onset: {}", text::line(&words)), 2),
        // A line each, beginning with the key's path.
        Err(Failure::Config(error)) => (error.to_string(), 2),
        Err(Failure::Failed(words)) => (format!("onset: {}", text::line(&words)), 1),
    };
    for line in words.lines() {
        // Where stderr is closed there is nobody to tell.
        let _ = writeln!(err, "{}", text::line(line));
    }
    code
}

#[cfg(test)]
mod tests;

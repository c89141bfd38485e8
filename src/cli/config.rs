//! `onset config`: prints the default config.

use std::io::Write;

use super::{Command, Exit, Failure, ParsedArgs};
use crate::config::Config;
use crate::tracer::REGISTRY;

pub(super) const COMMAND: Command = Command {
    name: "config",
    about: "Prints the whole default config, commented, in TOML",
    operands: &[],
    options: &[],
    run,
};

fn run(_: &ParsedArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    out.write_all(Config::default_text(REGISTRY).as_bytes())?;
    Ok(Exit::Success)
}

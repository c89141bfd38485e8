//! `onset config`: prints the default config.

use std::io::Write;

use super::{Command, Done, Failure, Given};
use crate::config::Config;
use crate::tracer::REGISTRY;

pub(super) const COMMAND: Command = Command {
    name: "config",
    about: "Prints the whole default config, commented, in TOML",
    operands: &[],
    options: &[],
    run,
};

fn run(_: &Given, out: &mut dyn Write) -> Result<Done, Failure> {
    out.write_all(Config::default_text(REGISTRY).as_bytes())?;
    Ok(Done::Well)
}

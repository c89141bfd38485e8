//! `onset run`: the agent, in the foreground.

use std::io::Write;

use super::{Command, Exit, Failure, ParsedArgs};
use crate::agent::{Agent, Error};
use crate::sys;

pub(super) const COMMAND: Command = Command {
    name: "run",
    about: "Runs the agent until SIGTERM or SIGINT; SIGHUP reads the config again",
    operands: &[],
    options: &[],
    run,
};

fn run(args: &ParsedArgs, _: &mut dyn Write) -> Result<Exit, Failure> {
    let config = args.config()?;
    Agent::start(config, args.path("config"))
        .and_then(Agent::run)
        .map_err(|error| Failure::Failed(words(&error)))?;
    Ok(Exit::Success)
}

fn words(error: &Error) -> String {
    if sys::is_root() {
        return error.to_string();
    }
    format!("{error}; this is not root: run it as root, or with the capabilities that onset doctor names")
}

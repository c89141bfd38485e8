//! `onset run`: the agent, in the foreground.

use std::io::Write;

use super::{Command, Done, Failure, Given};
use crate::agent::{Agent, Error};
use crate::sys;

pub(super) const COMMAND: Command = Command {
    name: "run",
    about: "Runs the agent until SIGTERM or SIGINT; SIGHUP reads the config again",
    operands: &[],
    options: &[],
    run,
};

fn run(given: &Given, _: &mut dyn Write) -> Result<Done, Failure> {
    let config = given.config()?;
    Agent::start(config, given.path("config"))
        .and_then(Agent::run)
        .map_err(|error| Failure::Failed(words(&error)))?;
    Ok(Done::Well)
}

fn words(error: &Error) -> String {
    if sys::is_root() {
        return error.to_string();
    }
    format!("{error}; this is not root: run it as root, or with the capabilities that onset doctor names")
}

//! `onset trigger`: has the agent capture now, and waits for the event.

use std::io::Write;
use std::time::Duration;

use super::{Command, Exit, Failure, Opt, ParsedArgs, text};
use crate::control::{self, ControlRequest, Outcome};
use crate::tracer::no_tracer;

/// The agent itself gives up a little sooner.
const PATIENCE: Duration = Duration::from_secs(130);

pub(super) const COMMAND: Command = Command {
    name: "trigger",
    about: "Captures now, past thresholds, cooldown and budget, and prints the event's id",
    operands: &["TRACER"],
    options: &[
        Opt {
            long: "container",
            short: None,
            value: Some("ID"),
            about: "The container, by its id or the beginning of that; default: the host",
        },
        Opt {
            long: "seconds",
            short: None,
            value: Some("N"),
            about: "How long to capture; default: the tracer's `capture`",
        },
    ],
    run,
};

fn run(args: &ParsedArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    let (name, container) = (args.operand(0)?, args.text("container")?);
    let config = args.config()?;
    let specs = || config.tracers.iter().map(|tracer| tracer.spec);
    let Some(tracer) = specs().find(|spec| spec.name == name) else {
        return Err(Failure::Usage(no_tracer(name, specs())));
    };
    if container.is_some() && !tracer.containers {
        return Err(Failure::Usage(format!("{name} is about the host: it takes no --container")));
    }
    let request = ControlRequest::Trigger {
        tracer: name.to_owned(),
        container: container.map(str::to_owned),
        seconds: args.number("seconds")?,
    };
    let reply = control::ask(&config.socket, &request, PATIENCE)?;
    match serde_json::from_str(&reply) {
        Ok(Outcome::Id(id)) => {
            writeln!(out, "{}", text::line(&id))?;
            Ok(Exit::Success)
        }
        Ok(Outcome::Refused(why)) => Err(Failure::Failed(format!("refused: {why}"))),
        Err(_) => Err(Failure::Failed(format!("the agent said what this onset does not know: {reply}"))),
    }
}

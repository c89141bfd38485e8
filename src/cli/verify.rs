//! `onset verify`: checks every record of the log.

use std::io::Write;

use super::arguments::DIR;
use super::{Command, Exit, Failure, ParsedArgs, text};
use crate::log;

pub(super) const COMMAND: Command = Command {
    name: "verify",
    about: "Checks every record of the log; a torn tail is what a crash leaves, and sound",
    operands: &[],
    options: &[DIR],
    run,
};

fn run(args: &ParsedArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    let report = log::verify(&args.dir()?)?;
    writeln!(out, "segments     {}", report.segments)?;
    writeln!(out, "records      {}", report.records)?;
    writeln!(out, "bytes        {} ({})", report.bytes, text::bytes(report.bytes))?;
    writeln!(out, "torn tail    {} bytes", report.torn_bytes)?;
    writeln!(out, "bad records  {}", report.bad_records)?;
    if report.bad_segments > 0 {
        writeln!(out, "bad segments {} (their headers; records in them are counted)", report.bad_segments)?;
    }
    if report.missing_records > 0 {
        writeln!(out, "missing      {} records between others that are there", report.missing_records)?;
    }
    Ok(if report.sound() { Exit::Success } else { Exit::Failure })
}

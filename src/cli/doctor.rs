//! `onset doctor`: whether each tracer can run here, in which way, and what is missing.

use std::io::Write;
use std::sync::Arc;

use super::arguments::JSON;
use super::{Command, Done, Failure, Given, text};
use crate::agent::{Fit, fits};
use crate::capture::Captures;
use crate::host::{Loss, Mode, Reader};
use crate::sys;
use crate::tracer::TRACERS;

pub(super) const COMMAND: Command = Command {
    name: "doctor",
    about: "Says for each tracer whether it can run here, how, and what is missing",
    operands: &[],
    options: &[JSON],
    run,
};

/// What `--json` prints.
#[derive(serde::Serialize)]
struct Findings {
    kernel: String,
    root: bool,
    cgroups: Option<&'static str>,
    cgroups_missing: Option<String>,
    cgroups_lost: Vec<Loss>,
    psi: bool,
    tracers: Vec<Fit>,
}

fn run(given: &Given, out: &mut dyn Write) -> Result<Done, Failure> {
    let config = given.config()?;
    let mut reader = Reader::open(&config.paths, config.containers);
    let lost = reader.as_mut().map(|reader| reader.losses(sys::now())).unwrap_or_default();
    let mode = reader.as_ref().ok().map(Reader::mode);
    let mut captures =
        Captures::load(&config.paths, mode == Some(Mode::V2), config.containers, Arc::new(|| ()));
    let psi = config.paths.proc.join("pressure").exists();
    let release = std::fs::read_to_string(config.paths.proc.join("sys/kernel/osrelease")).unwrap_or_default();
    let findings = Findings {
        kernel: release.trim().to_owned(),
        root: sys::is_root(),
        cgroups: mode.map(words),
        cgroups_lost: lost,
        cgroups_missing: reader.err().map(|error| error.to_string()),
        psi,
        tracers: fits(
            TRACERS.iter().copied().zip(&config.tracers),
            &mut captures,
            psi,
            psi && mode == Some(Mode::V2),
        ),
    };
    if given.flag(JSON.long) {
        let json =
            serde_json::to_string_pretty(&findings).map_err(|error| Failure::Failed(error.to_string()))?;
        writeln!(out, "{json}")?;
    } else {
        show(&findings, out)?;
    }
    let well = findings.cgroups.is_some() && findings.tracers.iter().all(|fit| fit.runs || !fit.enabled);
    Ok(if well { Done::Well } else { Done::Badly })
}

fn words(mode: Mode) -> &'static str {
    match mode {
        Mode::V1 => "v1",
        Mode::Hybrid => "hybrid: v1 controllers beside a v2 tree",
        Mode::V2 => "v2",
    }
}

fn show(findings: &Findings, out: &mut dyn Write) -> Result<(), Failure> {
    writeln!(out, "kernel   {}", text::line(&findings.kernel))?;
    let root = if findings.root {
        "root"
    } else {
        "not root: needs CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH"
    };
    writeln!(out, "rights   {root}")?;
    match (&findings.cgroups, &findings.cgroups_missing) {
        (Some(mode), _) => writeln!(out, "cgroups  {mode}")?,
        (None, missing) => {
            writeln!(out, "cgroups  missing: {}", text::line(missing.as_deref().unwrap_or("")))?
        }
    }
    for Loss { controller, why, cost } in &findings.cgroups_lost {
        writeln!(out, "         missing: {controller}: {}; {cost}", text::line(why))?;
    }
    writeln!(out, "psi      {}", if findings.psi { "yes" } else { "no (CONFIG_PSI, psi=1)" })?;
    for fit in &findings.tracers {
        let state = match (fit.runs, fit.enabled) {
            (true, true) => "can run",
            (true, false) => "can run, but is disabled",
            (false, _) => "cannot run",
        };
        writeln!(out, "\n{:<8} {state}: {}", fit.tracer, fit.about)?;
        for mode in &fit.modes {
            writeln!(out, "         {}", text::line(mode))?;
        }
        for missing in &fit.missing {
            writeln!(out, "         missing: {}", text::line(missing))?;
        }
    }
    Ok(())
}

//! `onset doctor`: whether each tracer can run here, in which way, and what is missing; which
//! capabilities there are, and what the lack of one costs.

use std::fs::OpenOptions;
use std::io::Write;
use std::sync::Arc;

use super::arguments::JSON;
use super::{Command, Exit, Failure, ParsedArgs, text};
use crate::agent::{Support, cgroup_source, supports};
use crate::bpf::{self, Standing};
use crate::capture::{self, Captures, Hierarchy};
use crate::confine::{self, CAPABILITIES, Host};
use crate::host::Paths;
use crate::host::{Facts, MissingController, Mode, Reader, ReadingMethod};
use crate::sys;

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
    capabilities: Vec<CapabilityState>,
    cgroups: Option<&'static str>,
    cgroups_missing: Option<String>,
    cgroups_lost: Vec<MissingController>,
    readings: Vec<ReadingMethod>,
    psi: bool,
    tracers: Vec<Support>,
    programs: Vec<bpf::Program>,
}

/// One of them, and how it stands.
#[derive(serde::Serialize)]
struct CapabilityState {
    name: &'static str,
    held: bool,
    needed: bool,
    optional: bool,
    purpose: &'static str,
    without: &'static str,
}

fn run(args: &ParsedArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    let config = args.config()?;
    let psi = config.paths.proc.join("pressure").exists();
    let capabilities = capabilities(&host(&config.paths, psi));
    let mut reader = Reader::open(&config.paths, config.containers);
    let lost = reader.as_mut().map(|reader| reader.missing_controllers(sys::now())).unwrap_or_default();
    let mode = reader.as_ref().ok().map(Reader::mode);
    let hierarchy = Hierarchy { root: &config.paths.cgroup, unified: mode == Some(Mode::V2) };
    let mut captures = Captures::load(&config.paths, hierarchy, config.containers, Arc::new(|| ()));
    let release = std::fs::read_to_string(config.paths.proc.join("sys/kernel/osrelease")).unwrap_or_default();
    let tracers = supports(&config.tracers, &mut captures, psi, psi && mode == Some(Mode::V2));
    captures.try_attach();
    let readings = readings(reader.as_mut().ok(), &mut captures, &config.paths);
    let findings = Findings {
        kernel: release.trim().to_owned(),
        root: sys::is_root(),
        capabilities,
        cgroups: mode.map(words),
        cgroups_lost: lost,
        cgroups_missing: reader.err().map(|error| error.to_string()),
        readings,
        psi,
        tracers,
        programs: programs(),
    };
    if args.flag(JSON.long) {
        let json =
            serde_json::to_string_pretty(&findings).map_err(|error| Failure::Failed(error.to_string()))?;
        writeln!(out, "{json}")?;
    } else {
        show(&findings, out)?;
    }
    let well =
        findings.cgroups.is_some() && findings.tracers.iter().all(|support| support.runs || !support.enabled);
    Ok(if well { Exit::Success } else { Exit::Failure })
}

/// In which way containers are read here: they are, once by each.
fn readings(reader: Option<&mut Reader>, captures: &mut Captures, paths: &Paths) -> Vec<ReadingMethod> {
    let Some(reader) = reader else { return Vec::new() };
    reader.read_by(cgroup_source(captures, &paths.proc));
    let of_containers = Facts { container_cpu: true, container_memory: true, ..Facts::NONE };
    for _ in 0..2 {
        // The first read may be the proof that the second relies on.
        reader.forget();
        reader.read(of_containers, sys::now());
    }
    reader.methods().collect()
}

fn programs() -> Vec<bpf::Program> {
    let mut all = Vec::new();
    bpf::each_program(&mut |program| all.push(program.clone()));
    all
}

fn host(paths: &Paths, psi: bool) -> Host {
    let knob = |name: &str| -> Option<i32> {
        std::fs::read_to_string(paths.proc.join("sys/kernel").join(name)).ok()?.trim().parse().ok()
    };
    let held = confine::held();
    let paranoid = knob("perf_event_paranoid");
    let pressure = paths.proc.join("pressure/io");
    Host {
        // One that does not say is taken for a new one.
        release: capture::release(&paths.proc).unwrap_or((u32::MAX, 0)),
        btf: bpf::btf(&paths.sys).is_ok(),
        // Opening it arms none yet.
        triggers_refused: psi && OpenOptions::new().read(true).write(true).open(pressure).is_err(),
        sampling_guarded: paranoid.is_some_and(|level| level > 2)
            && (held & confine::SYS_ADMIN != 0 || !bpf::may_sample(0)),
        memlock: sys::memlock_is_free(),
        open_symbols: knob("kptr_restrict") == Some(0) && paranoid.is_some_and(|level| level <= 1),
    }
}

fn capabilities(host: &Host) -> Vec<CapabilityState> {
    let held = confine::held();
    let stand = |capability: &confine::Capability| CapabilityState {
        name: capability.name,
        held: capability.is_held(held),
        needed: capability.needed(host),
        optional: capability.optional,
        purpose: capability.purpose,
        without: capability.without,
    };
    CAPABILITIES.iter().map(stand).collect()
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
    show_capabilities(findings, out)?;
    match (&findings.cgroups, &findings.cgroups_missing) {
        (Some(mode), _) => writeln!(out, "cgroups  {mode}")?,
        (None, missing) => {
            writeln!(out, "cgroups  missing: {}", text::line(missing.as_deref().unwrap_or("")))?
        }
    }
    for MissingController { controller, why, cost } in &findings.cgroups_lost {
        writeln!(out, "         missing: {controller}: {}; {cost}", text::line(why))?;
    }
    for ReadingMethod { readings, method, reason } in &findings.readings {
        let reason = reason.map_or(String::new(), |why| format!(": {why}"));
        writeln!(out, "readings {readings} by {}{}", text::line(method), text::line(&reason))?;
    }
    writeln!(out, "psi      {}", if findings.psi { "yes" } else { "no (CONFIG_PSI, psi=1)" })?;
    for support in &findings.tracers {
        let state = match (support.runs, support.enabled) {
            (true, true) => "can run",
            (true, false) => "can run, but is disabled",
            (false, _) => "cannot run",
        };
        writeln!(out, "\n{:<8} {state}: {}", support.tracer, support.about)?;
        for mode in &support.modes {
            writeln!(out, "         {}", text::line(mode))?;
        }
        for missing in &support.missing {
            writeln!(out, "         missing: {}", text::line(missing))?;
        }
    }
    show_programs(&findings.programs, out)
}

/// What a program measures is unknown where it does not stand; the others are counted.
fn show_programs(all: &[bpf::Program], out: &mut dyn Write) -> Result<(), Failure> {
    if all.is_empty() {
        return Ok(());
    }
    let named = |standing: Standing| -> Vec<_> {
        all.iter().filter(|one| one.standing == standing).map(|one| one.program).collect()
    };
    let well = named(Standing::Loaded).len() + named(Standing::Attached).len();
    writeln!(out, "\nprograms {well} of {} were loaded and attached", all.len())?;
    for (standing, what) in [
        (Standing::Unneeded, "not needed on this kernel"),
        (Standing::Absent, "nothing to attach to, unless a module brings it"),
    ] {
        let names = named(standing);
        if !names.is_empty() {
            writeln!(out, "         {what}: {}", names.join(", "))?;
        }
    }
    for refused in all.iter().filter(|one| one.standing == Standing::Refused) {
        let reason = refused.reason.as_deref().unwrap_or_default();
        writeln!(out, "         missing: {}: {}", refused.program, text::line(reason))?;
    }
    Ok(())
}

fn show_capabilities(findings: &Findings, out: &mut dyn Write) -> Result<(), Failure> {
    let wanted = || findings.capabilities.iter().filter(|one| one.needed);
    let held: Vec<_> = wanted().filter(|one| one.held).map(|one| one.name).collect();
    let who = if findings.root { "root" } else { "not root" };
    let held = if held.is_empty() { "no capability that onset uses".to_owned() } else { held.join(", ") };
    writeln!(out, "rights   {who}, with {held}")?;
    for one in wanted().filter(|one| !one.held) {
        writeln!(out, "         missing: {}, which {}; without it {}", one.name, one.purpose, one.without)?;
    }
    for one in findings.capabilities.iter().filter(|one| one.optional && !one.held) {
        writeln!(out, "         optional: {}, which {}; without it {}", one.name, one.purpose, one.without)?;
    }
    Ok(())
}

//! perf(1) as the independent sampler of the same load: it samples the whole machine meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::rig::{Folder, KillOnDrop, SOON, await_that, command, done, start};

pub struct Perf {
    child: KillOnDrop,
    file: PathBuf,
}

/// What it saw of the processes of one name.
#[derive(Default)]
pub struct PerfSymbol {
    pub samples: f64,
    /// Names of functions, the kernel's left out.
    pub names: BTreeSet<String>,
    /// User frames, and those with a name.
    pub frames: f64,
    pub named: f64,
    in_function: BTreeMap<String, f64>,
}

impl PerfSymbol {
    /// Samples in this function, or in what it calls.
    pub fn hot(&self, function: &str) -> f64 {
        self.in_function.get(function).copied().unwrap_or(0.0)
    }
}

/// By the name that the process had at that time.
pub type PerfReport = BTreeMap<String, PerfSymbol>;

/// No user address is above.
const KERNEL: u64 = 1 << 63;

impl Perf {
    pub fn record(folder: &Folder, lasting: Duration) -> Perf {
        let file = folder.0.join("perf.data");
        let mut perf = command("perf");
        perf.args(["record", "-q", "-a", "-F", "199", "-e", "cpu-clock", "-g", "-o"]).arg(&file);
        perf.args(["--", "sleep", &lasting.as_secs().to_string()]);
        Perf { child: start(&mut perf), file }
    }

    pub fn told(mut self) -> PerfReport {
        let child = &mut self.child.0;
        await_that("perf record", SOON, || child.try_wait().unwrap());
        parse(&script(&self.file))
    }
}

fn script(file: &Path) -> String {
    let mut perf = command("perf");
    perf.args(["script", "--no-inline", "-F", "comm,pid,ip,sym", "-i"]).arg(file);
    done(perf.stderr(std::process::Stdio::null()))
}

/// Samples are apart by an empty line: whose it is, then its frames, the innermost first.
fn parse(text: &str) -> PerfReport {
    let mut told = PerfReport::new();
    for sample in text.split("\n\n") {
        let mut lines = sample.lines().filter(|line| !line.trim().is_empty());
        let Some((comm, _)) = lines.next().and_then(|line| line.trim().rsplit_once(char::is_whitespace))
        else {
            continue;
        };
        let seen = told.entry(comm.trim().to_owned()).or_default();
        seen.samples += 1.0;
        let mut functions = BTreeSet::new();
        for line in lines {
            let Some((address, name)) = line.trim().split_once(' ') else { continue };
            if u64::from_str_radix(address, 16).is_ok_and(|address| address >= KERNEL) {
                continue;
            }
            seen.frames += 1.0;
            if name != "[unknown]" {
                seen.named += 1.0;
                functions.insert(name.to_owned());
            }
        }
        for function in functions {
            *seen.in_function.entry(function.clone()).or_default() += 1.0;
            seen.names.insert(function);
        }
    }
    told
}

//! What this host's cgroups do not tell, and what that costs: for `onset doctor`. Found out by what can
//! be read, and never by /proc/cgroups: from 6.12 on that leaves out what only v2 has.

use super::hierarchies::{Mode, controller, is_unified};
use super::{Facts, Reader};
use crate::clock::Now;
use crate::host::Reading;

/// A controller that does not tell what is read of it, and why.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct MissingController {
    /// The controller.
    pub controller: &'static str,
    /// Why it does not tell.
    pub why: String,
    /// What that costs.
    pub cost: &'static str,
}

const CPU: (&str, &str) = ("cpu", "quotas and throttling of containers are not known");
const CPUACCT: (&str, &str) = ("cpuacct", "cpuidle and waitrate see no container");
const CPUSET: (&str, &str) =
    ("cpuset", "a container is taken to have all CPUs that are online, but for its quota");
const MEMORY: (&str, &str) = ("memory", "memburst sees the host alone");
const PRESSURE: (&str, &str) =
    ("cpu.pressure", "waitrate probes the run queues now and then instead of reading who waits");

impl Reader {
    /// Looks for missing controllers in the hierarchies and at each container.
    pub fn missing_controllers(&mut self, now: Now) -> Vec<MissingController> {
        let mut missing = match self.hierarchies.mode {
            Mode::V2 => self.missing_in_v2(),
            Mode::V1 | Mode::Hybrid => self.missing_in_v1(),
        };
        let facts = Facts { container_cpu: true, container_memory: true, cpu_pressure: true, ..Facts::NONE };
        self.read(facts, now);
        let v2 = self.hierarchies.mode == Mode::V2;
        let mut leaves = vec![
            (if v2 { CPU } else { CPUACCT }, self.without(|it| it.cpu.is_none())),
            (CPU, self.without(|it| it.throttling.is_none())),
            (MEMORY, self.without(|it| it.memory.is_none())),
        ];
        if self.snapshot().cpu_stall.is_some() && v2 {
            leaves.push((PRESSURE, self.without(|it| it.cpu_stall.is_none())));
        }
        for ((controller, cost), found) in leaves {
            let known = missing.iter().any(|missing| missing.controller == controller);
            if let Some((number, path)) = found.filter(|_| !known) {
                let all = self.containers().len();
                let remedy = if v2 { "; it is off in cgroup.subtree_control above" } else { "" };
                let why = format!("{number} of {all} containers lack its files, as {path}{remedy}");
                missing.push(MissingController { controller, why, cost });
            }
        }
        missing
    }

    /// How many containers have a reading for which `is_so` holds, and the path of the first.
    fn without(&self, is_so: impl Fn(&Reading) -> bool) -> Option<(usize, String)> {
        let snapshot = self.snapshot();
        let mut so = snapshot.each().filter(|(_, reading)| is_so(reading));
        let first = so.next()?.0.cgroup_path().to_owned();
        Some((so.count() + 1, first))
    }

    fn missing_in_v2(&self) -> Vec<MissingController> {
        let path = self.hierarchies.ids_path.join("cgroup.controllers");
        let Ok(list) = std::fs::read_to_string(&path) else { return Vec::new() };
        let lacks = |name: &str| !list.split_ascii_whitespace().any(|it| it == name);
        let missing = [CPU, CPUSET, MEMORY].into_iter().filter(|(name, _)| lacks(name));
        let why = |name: &str| {
            format!(
                "{} does not list it: the kernel was booted with cgroup_disable={name}, or v1 has it",
                path.display()
            )
        };
        missing
            .map(|(controller, cost)| MissingController { controller, why: why(controller), cost })
            .collect()
    }

    fn missing_in_v1(&self) -> Vec<MissingController> {
        let Some(root) = self.hierarchies.ids_path.parent() else { return Vec::new() };
        let unified = root.join("unified");
        let there = std::fs::read_to_string(unified.join("cgroup.controllers")).unwrap_or_default();
        let missing = [CPUACCT, CPUSET, MEMORY];
        let missing = missing.into_iter().filter(|(name, _)| !matches!(controller(root, name), Ok(Some(_))));
        let why = |name: &str| {
            if is_unified(&unified) && there.split_ascii_whitespace().any(|it| it == name) {
                format!("it is in {} while that of cpu is v1: boot with all in one", unified.display())
            } else {
                format!("no hierarchy of it is mounted at {}/{name}", root.display())
            }
        };
        missing
            .map(|(controller, cost)| MissingController { controller, why: why(controller), cost })
            .collect()
    }
}

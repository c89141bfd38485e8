//! Anomalies, each in a container of its own, each waited for until it is told.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::cgroup::Cgroup;
use crate::frozen::Disk;
use crate::rig::{Agent, Folder, KillOnDrop, await_that, command, compile, start};

/// An anomaly is told within this; a machine that is busy with something else takes its time.
const LONG: Duration = Duration::from_secs(60);

/// Containers in which nothing happens.
const CALM: u32 = 20;

/// `ARGUMENTS: MiB each 100 ms, MiB in all`; then it waits to be killed.
const GROWER: &str = r#"
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
int main(int argc, char **argv)
{
	unsigned long step = strtoul(argv[1], 0, 10) << 20, all = strtoul(argv[2], 0, 10) << 20;
	char *at = mmap(NULL, all, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	for (unsigned long i = 0; i < all; i += 4096) {
		at[i] = 1;
		if (i % step == 0)
			usleep(100000);
	}
	for (;;)
		pause();
}
"#;

pub struct Work {
    ours: String,
    number: u32,
    grower: PathBuf,
    /// Ids of containers in which something happened.
    pub busy: BTreeSet<String>,
    pub kills: usize,
    _calm: Vec<(Cgroup, Option<KillOnDrop>)>,
    _folder: Folder,
}

impl Work {
    pub fn new() -> Work {
        let folder = Folder::new();
        let grower = compile(&folder, "grower", GROWER);
        let ours = format!("50a4{:012x}", std::process::id());
        let mut work = Work {
            ours,
            number: 0,
            grower,
            busy: BTreeSet::new(),
            kills: 0,
            _calm: Vec::new(),
            _folder: folder,
        };
        for number in 0..CALM {
            let cgroup = work.container();
            let sleeper = (number < 3).then(|| cgroup.start(command("sleep").arg("86400")));
            work._calm.push((cgroup, sleeper));
        }
        work
    }

    /// What the ids of all containers of this test begin with.
    pub fn ours(&self) -> &str {
        &self.ours
    }

    fn container(&mut self) -> Cgroup {
        self.number += 1;
        let id = format!("{}{:048x}", self.ours, self.number);
        Cgroup::at(&format!("docker/{id}"), &id)
    }

    fn busy(&mut self) -> Cgroup {
        let cgroup = self.container();
        self.busy.insert(cgroup.id.clone());
        cgroup
    }

    /// All of them, one after the other.
    pub fn round(&mut self, agent: &Agent) {
        self.burns(agent);
        self.is_stuck(agent);
        self.grows(agent);
        self.is_killed(agent);
        self.contends(agent);
        self.writes(agent);
        self.works_the_kernel(agent);
    }

    fn burns(&mut self, agent: &Agent) {
        let cgroup = self.busy();
        cgroup.quota(30);
        let _burner = cgroup.start(&mut spinner(None));
        told(agent, "cpuidle", &cgroup);
    }

    fn is_stuck(&mut self, agent: &Agent) {
        let cgroup = self.busy();
        let mut disk = Disk::new();
        disk.freeze();
        for name in ["a", "b", "c", "d"] {
            disk.stick(&cgroup, name);
        }
        told(agent, "dload", &cgroup);
        disk.thaw();
    }

    fn grows(&mut self, agent: &Agent) {
        let cgroup = self.busy();
        limit(&cgroup, 256);
        let _grower = cgroup.start(command(&self.grower).args(["8", "200"]));
        told(agent, "memburst", &cgroup);
    }

    fn is_killed(&mut self, agent: &Agent) {
        use std::os::unix::process::ExitStatusExt;
        let cgroup = self.busy();
        limit(&cgroup, 64);
        let _ = cgroup.write("memory.swappiness", "0") || cgroup.write("memory.swap.max", "0");
        let mut eater = cgroup.start(command(&self.grower).args(["64", "256"]));
        let status = await_that("the kill", LONG, || eater.0.try_wait().unwrap());
        assert_eq!(status.signal(), Some(libc::SIGKILL));
        self.kills += 1;
        told(agent, "oom", &cgroup);
    }

    fn contends(&mut self, agent: &Agent) {
        let (one, other) = (self.busy(), self.busy());
        let _spinners = [
            one.start(&mut spinner(Some(1))),
            other.start(&mut spinner(Some(1))),
            other.start(&mut spinner(Some(1))),
        ];
        told(agent, "waitrate", &other);
    }

    fn writes(&mut self, agent: &Agent) {
        // Dropped last: its files are open until the cgroup is empty.
        let disk = Disk::new();
        let cgroup = self.busy();
        let device = disk.device();
        // A loop device of this name was perhaps told of in the round before.
        let before = events_of(agent, &device);
        let _fio = cgroup.start(&mut disk.saturate(120));
        await_that("an event of the device", LONG, || (events_of(agent, &device) > before).then_some(()));
    }

    /// Told as a rise or, where the host was busy before, as a level that holds; not in each round, for the
    /// host has one cooldown.
    fn works_the_kernel(&mut self, agent: &Agent) {
        let samples = || agent.metric("onset_samples_total{tracer=\"cpusys\"}").unwrap();
        let until = samples() + 8.0;
        let _load = start(command("stress-ng").args(["--mmap", "2", "-t", "60", "-q"]));
        await_that("samples of it", LONG, || (samples() >= until).then_some(()));
    }
}

/// One that is never done.
fn spinner(cpu: Option<u32>) -> Command {
    let words = "while :; do :; done";
    match cpu {
        None => {
            let mut sh = command("sh");
            sh.args(["-c", words]);
            sh
        }
        Some(cpu) => {
            let mut taskset = command("taskset");
            taskset.args(["-c", &cpu.to_string(), "sh", "-c", words]);
            taskset
        }
    }
}

fn limit(cgroup: &Cgroup, mib: u64) {
    let bytes = (mib << 20).to_string();
    assert!(cgroup.write("memory.limit_in_bytes", &bytes) || cgroup.write("memory.max", &bytes));
}

fn told(agent: &Agent, tracer: &str, cgroup: &Cgroup) {
    agent.event(&format!("{tracer} to tell of {}", cgroup.id), LONG, |event| {
        event["tracer_name"] == tracer && event["container_id"] == cgroup.id.as_str()
    });
}

/// The device that an event is about.
pub fn device(event: &Value) -> Option<&str> {
    event.pointer("/tracer_data/reason_snapshot/device")?.as_str()
}

fn events_of(agent: &Agent, name: &str) -> usize {
    agent.events().iter().filter(|event| device(event) == Some(name)).count()
}

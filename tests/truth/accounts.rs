//! What the kernel itself counts, read here and not by the agent.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use onset::clock::Wall;
use serde_json::Value;

use crate::cgroup::Cgroup;
use crate::rig::text;
use crate::stage::lasted;

/// How long a process has run, and has waited for a CPU: /proc/PID/schedstat of its main thread.
#[derive(Clone, Copy, Debug)]
pub struct Sched {
    pub ran: Duration,
    pub waited: Duration,
}

impl Sched {
    pub fn of(pid: u32) -> Sched {
        let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap();
        let mut numbers =
            text.split_ascii_whitespace().map(|word| Duration::from_nanos(word.parse().unwrap()));
        Sched { ran: numbers.next().unwrap(), waited: numbers.next().unwrap() }
    }

    pub fn since(self, before: Sched) -> Sched {
        Sched { ran: self.ran - before.ran, waited: self.waited - before.waited }
    }
}

/// A file of a cgroup's, of v1 or of v2.
fn file(path: &str, names: [&str; 2]) -> (PathBuf, usize) {
    let roots = ["cpuacct", "cpu", "memory", "unified", "."];
    let found = names.iter().enumerate().find_map(|(place, name)| {
        let paths =
            roots.iter().map(|root| Path::new("/sys/fs/cgroup").join(root).join(&path[1..]).join(name));
        paths.into_iter().find(|path| path.exists()).map(|path| (path, place))
    });
    found.unwrap_or_else(|| panic!("neither of {names:?} for {path}"))
}

fn keyed(text: &str, key: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {key} in {text}")).trim().parse().unwrap()
}

/// CPU time of a cgroup at this path; of "/", of the whole host.
pub fn cpu_time(path: &str) -> Duration {
    let (file, place) = file(path, ["cpuacct.usage", "cpu.stat"]);
    let text = fs::read_to_string(file).unwrap();
    if place == 0 {
        return Duration::from_nanos(text.trim().parse().unwrap());
    }
    Duration::from_micros(keyed(&text, "usage_usec"))
}

/// How long a container was held back by its quota.
pub fn throttled_time(cgroup: &Cgroup) -> Duration {
    let v1 = Path::new("/sys/fs/cgroup/cpu").join(&cgroup.path()[1..]).join("cpu.stat");
    if let Ok(text) = fs::read_to_string(v1) {
        return Duration::from_nanos(keyed(&text, "throttled_time"));
    }
    let (file, _) = file(cgroup.path(), ["cpu.stat"; 2]);
    Duration::from_micros(keyed(&fs::read_to_string(file).unwrap(), "throttled_usec"))
}

/// Kills for want of memory in a cgroup.
pub fn kills(cgroup: &Cgroup) -> u64 {
    let (file, _) = file(cgroup.path(), ["memory.oom_control", "memory.events"]);
    keyed(&fs::read_to_string(file).unwrap(), "oom_kill")
}

/// Of the whole host, in ticks: user, nice, system, idle, iowait, irq, softirq, steal.
fn host_modes() -> Vec<u64> {
    let text = fs::read_to_string("/proc/stat").unwrap();
    let line = text.lines().next().unwrap();
    line.split_ascii_whitespace().skip(1).take(8).map(|word| word.parse().unwrap()).collect()
}

/// Of the whole host, in ticks: time in the kernel, and all time.
pub fn host_ticks() -> (u64, u64) {
    let ticks = host_modes();
    (ticks[2], ticks.iter().sum())
}

/// Time in which a hypervisor gave this machine's CPUs to others. The kernel leaves it out of what it counts for
/// tasks and cgroups; whoever goes by a clock, as onset does, has it in.
pub fn stolen() -> Duration {
    // USER_HZ is 100 on every architecture that Linux has now.
    Duration::from_millis(host_modes()[7] * 10)
}

/// A count as it grew: seconds since 1970, and the count then, in seconds.
pub struct Growth(Vec<(f64, f64)>);

impl Growth {
    /// Reads it every few milliseconds, until the other end is dropped.
    pub fn of(read: impl Fn() -> Duration, until: mpsc::Receiver<()>) -> Growth {
        let mut all = Vec::new();
        while until.recv_timeout(Duration::from_millis(20)) == Err(RecvTimeoutError::Timeout) {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            all.push((now.as_secs_f64(), read().as_secs_f64()));
        }
        Growth(all)
    }

    fn at(&self, time: f64) -> f64 {
        let next = self.0.partition_point(|(at, _)| *at < time).clamp(1, self.0.len() - 1);
        let ((before, less), (after, more)) = (self.0[next - 1], self.0[next]);
        less + (more - less) * (time - before) / (after - before)
    }

    /// By how much it grew while this event's capture lasted, as the event says when that was.
    pub fn during(&self, event: &Value) -> Duration {
        let begin = Wall::parse(text(event, "/tracer_time")).unwrap().0 as f64 / 1000.0;
        Duration::from_secs_f64(self.at(begin + lasted(event)) - self.at(begin))
    }
}

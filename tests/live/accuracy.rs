//! What captures of waits say, held against what the kernel itself counts of the same time: of the
//! agent confined, under its own filter and rights.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use onset::clock::Wall;
use serde_json::Value;

use crate::cgroup::Cgroup;
use crate::rig::{
    Agent, Folder, KillOnDrop, ONSET, SOON, command, compile, config, done, number, only, root, text,
};

/// How much of a capture's time may be wrong.
const BOUND: f64 = 0.03;

/// How long a capture lasts. A tick of the kernel's clock at each end is a small part of it.
const SECONDS: &str = "4";

/// A spinner on the second CPU.
fn spin(cgroup: &Cgroup) -> KillOnDrop {
    cgroup.start(command("taskset").args(["-c", "1", "sh", "-c", "while :; do :; done"]))
}

/// Milliseconds that a process has run and has waited for a CPU.
fn schedstat(pid: u32) -> [f64; 2] {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap();
    let mut fields = text.split_ascii_whitespace().map(|field| field.parse::<f64>().unwrap() / 1e6);
    [fields.next().unwrap(), fields.next().unwrap()]
}

/// Both of all these processes.
fn of_all(spinners: &[KillOnDrop]) -> [f64; 2] {
    spinners
        .iter()
        .map(|spinner| schedstat(spinner.0.id()))
        .fold([0.0; 2], |sum, one| [sum[0] + one[0], sum[1] + one[1]])
}

/// Milliseconds for which a cgroup's queues were throttled.
fn throttled(cgroup: &Cgroup) -> f64 {
    let file = |folder: &str| fs::read_to_string(format!("/sys/fs/cgroup{folder}{}/cpu.stat", cgroup.path()));
    let stat = file("/cpu").or_else(|_| file("")).unwrap();
    let field = |name: &str| -> Option<f64> {
        stat.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    };
    field("throttled_time ").map(|ns| ns / 1e6).or_else(|| Some(field("throttled_usec ")? / 1e3)).unwrap()
}

fn wall_ms() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64() * 1e3
}

/// Has a container's waits captured, and numbers that only grow read meanwhile. The event, and by how
/// much they grew within it.
fn captured<const N: usize>(
    agent: &Agent,
    cgroup: &Cgroup,
    read: impl Fn() -> [f64; N] + Sync,
) -> (Value, [f64; N]) {
    let over = AtomicBool::new(false);
    let (id, readings) = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut readings = Vec::new();
            while !over.load(Ordering::Relaxed) {
                readings.push((wall_ms(), read()));
                std::thread::sleep(Duration::from_millis(5));
            }
            readings.push((wall_ms(), read()));
            readings
        });
        let asked = ["trigger", "waitrate", "--container", &cgroup.id, "--seconds", SECONDS];
        let id = done(&mut agent.onset(&asked));
        over.store(true, Ordering::Relaxed);
        (id, reader.join().unwrap())
    });
    let event = agent.events().into_iter().find(|event| event["tracer_id"] == id.trim()).unwrap();
    let asked = Wall::parse(text(&event, "/tracer_time")).unwrap().0 as f64;
    let began = asked + number(&event, "/tracer_data/capture_began_ms");
    let ended = began + number(&event, "/tracer_data/duration_ms");
    let at = |when: f64| {
        let after = readings.iter().position(|(time, _)| *time >= when).unwrap();
        let ((from, low), (to, high)) = (readings[after.saturating_sub(1)], readings[after]);
        let part = if to > from { (when - from) / (to - from) } else { 0.0 };
        std::array::from_fn(|index| low[index] + (high[index] - low[index]) * part)
    };
    let (first, last): ([f64; N], [f64; N]) = (at(began), at(ended));
    (event, std::array::from_fn(|index| last[index] - first[index]))
}

/// Within a part of the capture's time.
fn agrees(event: &Value, what: &str, told: f64, truth: f64, bound: f64) {
    let error = (told - truth).abs() / number(event, "/tracer_data/duration_ms");
    println!("{what}: told {told:.0}, the kernel counted {truth:.0}: {:.2} %", error * 100.0);
    assert!(error <= bound, "{what}: told {told:.0}, the kernel counted {truth:.0}: {event:#}");
}

fn healthy(agent: &Agent) {
    for fault in ["bpf_flush", "bpf_attach", "bpf_detach", "bpf_read", "bpf_write"] {
        let sample = format!("onset_faults_total{{tracer=\"onset\",fault=\"{fault}\"}}");
        assert_eq!(agent.metric(&sample), Some(0.0), "{sample}");
    }
}

#[test]
fn run_and_wait_times_agree_with_schedstat() {
    if !root("accuracy of waits") {
        return;
    }
    let agent = Agent::start(&only("waitrate", "probe_every = \"1h\""));
    let cgroup = Cgroup::new("accurate");
    let mut spinners = Vec::new();
    // One that is alone on its CPU is never switched from: only a look at what runs there tells of it.
    for count in 1..=3 {
        spinners.push(spin(&cgroup));
        let (event, [ran, waited]) = captured(&agent, &cgroup, || of_all(&spinners));
        let told = |field| number(&event, &format!("/tracer_data/{field}"));
        let (run_ms, wait_ms) = (told("run_ms"), told("wait_ms"));
        agrees(&event, &format!("run_ms of {count}"), run_ms, ran, BOUND);
        agrees(&event, &format!("wait_ms of {count}"), wait_ms, waited, BOUND * f64::from(count));
        // Whatever else runs here: one that spins runs, or waits to.
        let all = f64::from(count) * told("duration_ms");
        agrees(&event, &format!("both of {count}"), run_ms + wait_ms, all, BOUND * f64::from(count));
        assert!(event["tracer_data"].get("unread_cpus").is_none(), "{event:#}");
    }
    healthy(&agent);
    assert_eq!(agent.leave(), Some(0));
}

#[test]
fn throttled_time_agrees_with_the_cgroup() {
    if !root("accuracy of throttling") {
        return;
    }
    let agent = Agent::start(&only("waitrate", "probe_every = \"1h\""));
    let cgroup = Cgroup::new("held");
    cgroup.quota(30);
    let _spinner = spin(&cgroup);
    let (event, [truth]) = captured(&agent, &cgroup, || [throttled(&cgroup)]);
    let told =
        number(&event, "/tracer_data/wait_ms") * number(&event, "/tracer_data/throttled_percent") / 100.0;
    agrees(&event, "throttled", told, truth, 0.05);
    assert!(truth > 0.3 * number(&event, "/tracer_data/duration_ms"), "it was held back: {truth}");
    healthy(&agent);
    assert_eq!(agent.leave(), Some(0));
}

/// Runs what it is given, which may do all but run a loaded program (BPF_PROG_TEST_RUN).
const WITHOUT_RUNS: &str = r#"
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(int count, char **words)
{
	struct sock_filter steps[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_bpf, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 10, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog filter = { sizeof(steps) / sizeof(*steps), steps };

	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter);
	return execv(words[1], words + 1);
}
"#;

#[test]
fn waits_that_cannot_be_updated_are_counted_in_the_document() {
    if !root("a refused flush") {
        return;
    }
    let folder = Folder::new();
    let without = compile(&folder, "without_runs", WITHOUT_RUNS);
    let config = config(&folder, "", &only("waitrate", "every = \"500ms\"\nprobe_every = \"1s\""));
    // Some wait for a CPU at all times: only then is a probe called for.
    let online = std::thread::available_parallelism().unwrap().get();
    let cgroup = Cgroup::new("unflushed");
    let _spinners: Vec<_> = (0..=online).map(|_| spin(&cgroup)).collect();
    let agent = Agent::start_by(command(without).arg(ONSET), folder, config);
    let said = agent
        .said
        .wait("words about the probe's", SOON, |line| line.contains("bpf_flush").then(|| line.to_owned()));
    assert!(said.contains("Operation not permitted") && said.contains("documents of waits say"), "{said}");
    let id = done(&mut agent.onset(&["trigger", "waitrate", "--container", &cgroup.id, "--seconds", "1"]));
    let event = agent.events().into_iter().find(|event| event["tracer_id"] == id.trim()).unwrap();
    assert_eq!(number(&event, "/tracer_data/unread_cpus"), online as f64, "{event:#}");
    let failed = agent.metric("onset_faults_total{tracer=\"onset\",fault=\"bpf_flush\"}");
    assert!(failed.is_some_and(|failed| failed > 3.0), "{failed:?}");
    let status = done(&mut agent.onset(&["status"]));
    assert!(status.contains("\nfaults      bpf_flush "), "{status}");
    // By what lacks a part nothing is judged.
    let refused = agent.metric("onset_captures_total{tracer=\"waitrate\",outcome=\"failed\"}");
    assert!(refused.is_some_and(|refused| refused > 0.0), "{refused:?}");
    assert!(agent.said.come().iter().all(|line| !line.contains("bpf_flush")), "it is said once");
    assert_eq!(agent.leave(), Some(0));
}

//! Host system time: a real load on the kernel, and a written /proc/stat that must fire exactly
//! where the rules say.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::rig::{Agent, Folder, SOON, await_that, command, number, only, root, start, text};

#[test]
fn a_load_on_the_kernel_is_caught_with_kernel_frames_on_top() {
    if !root("a load on the kernel") {
        return;
    }
    let agent = Agent::start(&only(
        "cpusys",
        "every = \"1s\"\ncapture = \"2s\"\nsystem_percent = 45\nsystem_rise = 20\nsustained_samples = 0",
    ));
    await_that("samples of a calm host", SOON, || {
        agent.metric("onset_samples_total{tracer=\"cpusys\"}").filter(|samples| *samples >= 4.0)
    });
    let _load = start(command("stress-ng").args(["--mmap", "2", "-t", "60", "-q"]));
    let event = agent.event("an event", SOON * 2, |event| event["tracer_name"] == "cpusys");
    assert!(event.get("container_id").is_none(), "it is the host's");
    assert!(number(&event, "/tracer_data/system_percent") > 45.0);
    assert!(number(&event, "/tracer_data/system_percent_delta") > 20.0);
    let flame = event["tracer_data"]["flamedata"].as_array().unwrap();
    // Of the load alone: what else runs on this machine is not ours.
    let mut process = "";
    let mut loads = Vec::new();
    for node in flame {
        if node["level"] == 1 {
            process = text(node, "/label");
        }
        if process.starts_with("stress-ng") {
            loads.push(node);
        }
    }
    let own = |kernel: bool| -> u64 {
        let of = |node: &&&serde_json::Value| text(node, "/label").ends_with("_[k]") == kernel;
        loads.iter().filter(of).map(|node| node["self"].as_u64().unwrap()).sum()
    };
    assert!(own(true) > own(false), "kernel {} user {}", own(true), own(false));
    let named = flame.iter().filter(|node| text(node, "/label").ends_with("_[k]"));
    assert!(named.clone().any(|node| text(node, "/label").contains("mmap")), "{event:#}");
}

/// /proc/stat with fields of a fixed width, so that one write replaces all of it.
struct Stat {
    file: File,
    user: u64,
    system: u64,
    idle: u64,
}

impl Stat {
    fn write(&self) {
        let Stat { user, system, idle, .. } = self;
        let cpu = format!("{user:12} 0 {system:12} {idle:12} 0 0 0 0 0 0\n");
        let text = format!(
            "cpu  {cpu}cpu0 {cpu}intr 1 0\nctxt 1\nbtime 1\nprocesses 1\nprocs_running 1\nprocs_blocked 0\n"
        );
        self.file.write_all_at(text.as_bytes(), 0).unwrap();
    }

    /// Lets a second of a CPU go by (100 ticks), `percent` of it in the kernel.
    fn pass(&mut self, percent: u64) {
        self.system += percent;
        self.idle += 100 - percent;
        self.write();
    }
}

#[test]
fn a_written_proc_stat_fires_exactly_where_the_rules_say() {
    if !root("a written /proc/stat") {
        return;
    }
    let folder = Folder::new();
    let proc = folder.0.join("proc");
    std::fs::create_dir_all(proc.join("self")).unwrap();
    for name in ["loadavg", "meminfo", "diskstats", "cgroups", "mounts"] {
        std::fs::copy(format!("/proc/{name}"), proc.join(name)).unwrap();
    }
    let file = File::create(proc.join("stat")).unwrap();
    let mut stat = Stat { file, user: 1000, system: 1000, idle: 100_000 };
    stat.write();
    // Something runs at all times: a capture in which nothing did would be no event.
    let _busy = start(command("sh").arg("-c").arg("while :; do :; done"));
    let at = proc.display();
    let keys = "every = \"1s\"\ncapture = \"100ms\"\ncooldown = \"0s\"\nsustained_samples = 3\nsystem_percent = 45\nsystem_rise = 20";
    let agent = Agent::start(&format!("[paths]\nproc = \"{at}\"\n{}", only("cpusys", keys)));
    let samples = || agent.metric("onset_samples_total{tracer=\"cpusys\"}").unwrap();
    let captures = || {
        let of = |outcome| {
            agent.metric(&format!("onset_captures_total{{tracer=\"cpusys\",outcome=\"{outcome}\"}}")).unwrap()
        };
        ["done", "busy", "unsupported", "over_budget", "gone", "failed"].map(of).iter().sum::<f64>()
    };
    // Percent of the interval in the kernel, and whether a capture is asked for: over 45 and risen by
    // over 20, or over 45 three times in a row.
    let script: [(Option<u64>, bool); 16] = [
        (Some(10), false),
        (Some(30), false), // risen by 20, but low
        (Some(45), false), // at the threshold is not over it
        (Some(60), false), // high, but risen by 15 only
        (Some(10), false),
        (Some(46), true), // over 45, risen by 36
        (Some(10), false),
        (Some(30), false),
        (Some(50), false), // risen by 20 is not over 20
        (Some(50), false),
        (Some(50), true), // the third in a row: sustained
        (Some(10), false),
        (None, false),    // the counters went back: nothing is known of this interval
        (Some(80), true), // but before it, it was at 10
        (Some(10), false),
        (Some(80), true),
    ];
    let mut seen = await_that("the first sample", SOON, || Some(samples()).filter(|seen| *seen >= 2.0));
    let mut expected = 0.0;
    for (step, (percent, fires)) in script.into_iter().enumerate() {
        match percent {
            Some(percent) => stat.pass(percent),
            None => {
                (stat.user, stat.system, stat.idle) = (10, 10, 100);
                stat.write();
            }
        }
        seen = await_that("the next sample", SOON, || Some(samples()).filter(|now| *now > seen));
        expected += f64::from(u8::from(fires));
        if fires {
            await_that(&format!("a capture at step {step}"), SOON, || (captures() == expected).then_some(()));
        }
        assert_eq!(captures(), expected, "step {step}: {percent:?}");
        assert_eq!(samples(), seen, "step {step}: the machine is too slow to tell samples apart");
    }
    let triggers: Vec<_> =
        agent.events().iter().map(|event| text(event, "/tracer_data/trigger").to_owned()).collect();
    assert_eq!(triggers, ["surge", "sustained", "surge", "surge"]);
}

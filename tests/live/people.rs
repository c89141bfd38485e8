//! The commands that people use on a running agent, and its signals.

use serde_json::Value;

use crate::cgroup::Cgroup;
use crate::rig::{
    Agent, Folder, KillOnDrop, Lines, ONSET, SOON, await_that, command, config, done, only, root, run, start,
    text,
};

#[test]
fn status_and_trigger_ask_the_running_agent() {
    if !root("status and trigger") {
        return;
    }
    let cgroup = Cgroup::new("people");
    let _sleeper = cgroup.start(command("sleep").arg("600"));
    let agent = Agent::start(&only("dload", "every = \"1h\""));
    let id = done(&mut agent.onset(&["trigger", "dload", "--container", &cgroup.id[..40]]));
    let event = agent.event("the event", SOON, |event| event["tracer_id"] == id.trim());
    assert_eq!((text(&event, "/tracer_type"), text(&event, "/tracer_data/trigger")), ("manual", "manual"));
    assert_eq!(text(&event, "/container_id"), cgroup.id);
    let status: Value = serde_json::from_str(&done(&mut agent.onset(&["status", "--json"]))).unwrap();
    assert_eq!(status["pid"], agent.pid());
    let tracers = status["tracers"].as_array().unwrap();
    let dload = tracers.iter().find(|tracer| tracer["name"] == "dload").unwrap();
    assert_eq!((&dload["state"], &dload["events"]), (&"active".into(), &1.into()));
    assert_eq!(dload["last_event"]["id"], id.trim());
    assert_eq!(dload["last_event"]["trigger"], "manual");
    let made_of = &dload["last_event"]["captures"][0];
    assert_eq!((&made_of["kind"], &made_of["scope"]), (&"tasks".into(), &"container".into()));
    assert_eq!(made_of["outcome"], "done");
    assert!(text(made_of, "/began") >= text(&event, "/tracer_time"), "{made_of} for {event}");
    let shown = done(&mut agent.onset(&["status"]));
    assert!(shown.contains("dload") && shown.contains("disabled"), "{shown}");
    for (arguments, code, word) in [
        (&["trigger", "cpuidle"][..], 1, "disabled"),
        (&["trigger", "nothing"], 2, "there is no tracer nothing; there are cpuidle, "),
        (&["trigger", "cpusys", "--container", &cgroup.id], 2, "about the host"),
        (&["trigger", "dload", "--container", "fffffffffffff"], 1, "no container"),
        (&["trigger", "dload", "--seconds", "1000"], 1, "--seconds"),
    ] {
        let refused = run(&mut agent.onset(arguments));
        assert_eq!(refused.status.code(), Some(code), "{arguments:?}: {refused:?}");
        assert!(String::from_utf8_lossy(&refused.stderr).contains(word), "{arguments:?}: {refused:?}");
    }
    let socket = agent.folder.0.join("socket");
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(socket).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(agent.leave(), Some(0));
    let folder = Folder::new();
    let none = run(command(ONSET).args(["status", "--config"]).arg(config(&folder, "", "")));
    assert_eq!(none.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&none.stderr).contains("is it running"), "{none:?}");
}

#[test]
fn status_and_the_log_agree_on_an_event_whose_container_is_gone() {
    if !root("an event of one that is gone") {
        return;
    }
    let agent = Agent::start(&only("dload", "every = \"1h\""));
    let cgroup = Cgroup::new("gone");
    let id = cgroup.id.clone();
    let sleeper = cgroup.start(command("sleep").arg("600"));
    let trigger = || run(&mut agent.onset(&["trigger", "dload", "--container", &id]));
    let event = await_that("an event", SOON, || trigger().status.success().then(|| agent.events().pop()))
        .expect("it is in the log");
    drop((sleeper, cgroup));
    await_that("an empty host", SOON, || {
        let told = run(&mut agent.onset(&["trigger", "dload", "--container", &id]));
        String::from_utf8_lossy(&told.stderr).contains("no container").then_some(())
    });
    let status: Value = serde_json::from_str(&done(&mut agent.onset(&["status", "--json"]))).unwrap();
    let tracers = status["tracers"].as_array().unwrap();
    let last = &tracers.iter().find(|tracer| tracer["name"] == "dload").unwrap()["last_event"];
    assert_eq!(last["container_id"], id.as_str());
    for (of_status, of_event) in
        [("id", "tracer_id"), ("time", "tracer_time"), ("container_id", "container_id")]
    {
        assert_eq!(last[of_status], event[of_event], "{of_status}");
    }
    let row = |text: &str| text.lines().find(|line| line.contains("dload")).unwrap().to_owned();
    let (shown, listed) =
        (row(&done(&mut agent.onset(&["status"]))), row(&done(&mut agent.onset(&["events"]))));
    for word in [text(&event, "/tracer_time"), text(&event, "/tracer_id"), &id[..12]] {
        assert!(shown.contains(word) && listed.contains(word), "{word}: {shown}\n{listed}");
    }
    assert_eq!(agent.leave(), Some(0));
}

#[test]
fn a_refused_trigger_says_until_when() {
    if !root("a refused trigger") {
        return;
    }
    let agent = Agent::start(&only("cpuidle", "every = \"1h\""));
    let mut running = start(&mut agent.onset(&["trigger", "cpuidle", "--seconds", "6"]));
    await_that("the first to run", SOON, || {
        let status = run(&mut agent.onset(&["status", "--json"])).stdout;
        let status: serde_json::Value = serde_json::from_slice(&status).unwrap();
        let [open] = &status["open_captures"].as_array().map(Vec::as_slice).unwrap_or_default() else {
            return None;
        };
        assert_eq!(status["captures_open"], 1);
        for (name, value) in
            [("kind", "stacks"), ("scope", "host"), ("tracer", "cpuidle"), ("trigger", "manual")]
        {
            assert_eq!(open[name], value, "{open}");
        }
        Some(())
    });
    let shown = done(&mut agent.onset(&["status"]));
    assert!(shown.contains("\nstacks   host             cpuidle  manual   20"), "{shown}");
    let refused = await_that("a refusal", SOON, || {
        let told = run(&mut agent.onset(&["trigger", "cpuidle", "--seconds", "1"]));
        (told.status.code() == Some(1)).then(|| String::from_utf8(told.stderr).unwrap())
    });
    let now = onset::sys::now().wall;
    let (_, until) = refused.split_once("until about ").unwrap_or_else(|| panic!("{refused}"));
    let until = onset::clock::Wall::parse(until.split(' ').next().unwrap()).expect("a time");
    assert!(until.0 + 2000 > now.0 && until.0 < now.0 + 7000, "{refused} at {now}");
    assert!(refused.contains(" s from now"), "{refused}");
    assert!(await_that("the first", SOON, || running.0.try_wait().unwrap()).success());
    done(&mut agent.onset(&["trigger", "cpuidle", "--seconds", "1"]));
    assert_eq!(agent.leave(), Some(0));
}

#[test]
fn a_reload_applies_a_valid_config_and_refuses_an_invalid_one() {
    if !root("a reload") {
        return;
    }
    let agent = Agent::start(&only("dload", "every = \"1h\""));
    let good = std::fs::read_to_string(&agent.config).unwrap();
    let state = |tracer: &str| {
        agent.metric(&format!("onset_tracer_state{{tracer=\"{tracer}\",state=\"active\"}}")).unwrap() == 1.0
    };
    assert!(state("dload") && !state("cpusys"));
    agent.signal(libc::SIGHUP);
    agent.said.wait("that nothing changed", SOON, |line| line.contains("config unchanged").then_some(()));
    let share = good.replace("budget_percent = 100", "budget_percent = 50");
    std::fs::write(&agent.config, share).unwrap();
    agent.signal(libc::SIGHUP);
    agent
        .said
        .wait("what did", SOON, |line| line.ends_with("config reloaded; changed: [capture]").then_some(()));
    std::fs::write(&agent.config, good.replace("every = \"1h\"", "every = \"soon\"")).unwrap();
    agent.signal(libc::SIGHUP);
    agent.said.wait("a refusal", SOON, |line| line.contains("tracer.dload.every").then_some(()));
    assert!(state("dload"));
    assert_eq!(agent.metric("onset_faults_total{tracer=\"onset\",fault=\"reload_refused\"}"), Some(1.0));
    let other = good.replace("[tracer.cpusys]\nenabled = false", "[tracer.cpusys]\nenabled = true");
    std::fs::write(&agent.config, other.replace("every = \"1h\"", "enabled = false")).unwrap();
    agent.signal(libc::SIGHUP);
    agent.said.wait("the change", SOON, |line| line.contains("config reloaded").then_some(()));
    await_that("the new states", SOON, || (!state("dload") && state("cpusys")).then_some(()));
    assert_eq!(agent.leave(), Some(0));
}

#[test]
fn containers_come_and_go_while_it_runs() {
    if !root("containers") {
        return;
    }
    let agent = Agent::start(&only("cpuidle", "every = \"1s\""));
    let before = agent.metric("onset_containers").unwrap();
    let cgroups: Vec<_> = (0..5).map(|_| Cgroup::new("come")).collect();
    await_that("five more", SOON, || (agent.metric("onset_containers") == Some(before + 5.0)).then_some(()));
    drop(cgroups);
    await_that("five less", SOON, || (agent.metric("onset_containers") == Some(before)).then_some(()));
}

/// A log of 16 MiB with some events, all of whose segment is in the page cache; and its writer.
fn quiet_log(folder: &Folder) -> (std::path::PathBuf, onset::log::Writer) {
    let dir = folder.0.join("log");
    let (segment, budget, sync) = (16 << 20, 64 << 20, SOON);
    let log = onset::config::Log { dir: dir.clone(), segment, budget, document: 1 << 20, sync };
    let (mut writer, _) = onset::log::Writer::open(&log).unwrap();
    (0..3).for_each(|number| append(&mut writer, number));
    for entry in std::fs::read_dir(&dir).unwrap() {
        std::fs::read(entry.unwrap().path()).unwrap();
    }
    (dir, writer)
}

fn append(writer: &mut onset::log::Writer, number: u32) {
    let body = format!("{{\"tracer_name\":\"x\",\"number\":{number}}}");
    let filled = writer.append(|_, to| {
        to.get_mut(..body.len())?.copy_from_slice(body.as_bytes());
        Some(body.len())
    });
    assert!(filled.unwrap().is_some());
}

/// A follower of this log, and what it prints.
fn follower(dir: &std::path::Path) -> (KillOnDrop, Lines) {
    let mut follower = start(
        command(ONSET)
            .args(["events", "--follow", "--json", "--dir"])
            .arg(dir)
            .stdout(std::process::Stdio::piped()),
    );
    let lines = Lines::of(follower.0.stdout.take().unwrap());
    (follower, lines)
}

#[test]
fn following_an_idle_log_costs_next_to_nothing() {
    let folder = Folder::new();
    let (dir, mut writer) = quiet_log(&folder);
    let (follower, lines) = follower(&dir);
    for number in 0..3 {
        lines.wait("an event", SOON, |line| line.contains(&format!(":{number}}}")).then_some(()));
    }
    let pid = follower.0.id();
    let counts = || -> [u64; 3] {
        let io = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
        let of = |name: &str| {
            let line = io.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().parse().unwrap()
        };
        // Nanoseconds on a CPU.
        let ran = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap();
        [of("rchar:"), of("syscr:"), ran.split(' ').next().unwrap().parse().unwrap()]
    };
    // Its first looks walk the rest of the segment, twice: 32 MiB. Then each takes two reads of a head.
    let looks = |from: [u64; 3]| {
        await_that("thirty looks", SOON, || Some(counts()).filter(|now| now[1] >= from[1] + 60))
    };
    let calm = await_that("calm", SOON, || {
        let before = counts();
        let after = looks(before);
        (after[0] - before[0] < 100 * (after[1] - before[1])).then_some(after)
    });
    let began = std::time::Instant::now();
    let after = looks(calm);
    let (bytes, reads, ran) = (after[0] - calm[0], after[1] - calm[1], after[2] - calm[2]);
    assert!(bytes <= 32 * reads, "{bytes} bytes in {reads} reads");
    let share = ran as f64 / began.elapsed().as_nanos() as f64;
    println!("an idle follower: {bytes} bytes, {reads} reads, {:.3} % of a core", share * 100.0);
    assert!(share < 0.01, "{share}: a tenth of what it was, whatever else runs here");
    append(&mut writer, 3);
    lines.wait("the next event", SOON, |line| line.contains(":3}").then_some(()));
}

#[test]
fn events_follow_ends_with_its_reader_even_without_events() {
    let folder = Folder::new();
    let (dir, _writer) = quiet_log(&folder);
    let mut follower = start(
        command(ONSET).args(["events", "--follow", "--dir"]).arg(&dir).stdout(std::process::Stdio::piped()),
    );
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(follower.0.stdout.take().unwrap()));
    (0..3).for_each(|_| drop(lines.next().unwrap().unwrap()));
    drop(lines);
    let code = await_that("its end", SOON, || follower.0.try_wait().unwrap()).code();
    assert_eq!(code, Some(0));
}

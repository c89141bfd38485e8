//! SIGHUP as often as one likes: nothing that is under way ends, and nothing is forgotten.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use crate::cgroup::Cgroup;
use crate::oom::{EATER, eat, small};
use crate::rig::{
    Agent, Folder, KillOnDrop, ONSET, SOON, await_that, command, compile, config, done, number, only, root,
    run, start,
};

/// Reloads while captures run, and then some more while none does: those must not cost any memory.
const STORM: u64 = 900;
const AFTER: u64 = 100;

/// One reload in `BAD` is of a config that is refused.
const BAD: u64 = 50;

/// What a hundred reloads may leave behind: the heap is not cut to the byte.
const GROWN_MAX: f64 = 256.0 * 1024.0;

/// The config of a round: other thresholds and known issues than in the one before, and `memburst` on or off.
fn rules(round: u64, container: &str, budget: u64) -> String {
    let issues: String = (0..round % 4)
        .map(|number| format!("[[known_issue]]\nname = \"issue {number}\"\nframes = [\"frame\"]\n"))
        .collect();
    let varied = 1 + round % 7;
    format!(
        "{issues}\
         [tracer.cpuidle]\nevery = \"100ms\"\ncooldown = \"{varied}h\"\ncapture = \"1s\"\nsustained_samples = {}\n\
         user_percent = {varied}\ninclude = [\"id:{container}*\"]\n\
         [tracer.waitrate]\nevery = \"1s\"\nprobe = \"100ms\"\nprobe_every = \"1s\"\nhistory = \"{}m\"\n\
         floor_percent = 100\ndeviations = {varied}\n\
         [tracer.dload]\nevery = \"1h\"\nload = {varied}\n\
         [tracer.memburst]\nevery = \"1h\"\nenabled = {}\n\
         [tracer.cpusys]\nenabled = false\n[tracer.iotracing]\nenabled = false\n[tracer.oom]\nenabled = false\n\
         [capture]\nbudget_percent = {budget}\n",
        1 + round % 3,
        20 + round % 3 * 10,
        round.is_multiple_of(2),
    )
}

/// Puts a config in the other's place at once, and tells the agent.
fn reload(agent: &Agent, text: impl AsRef<str>) {
    let next = Folder::new();
    let written = config(&next, "", text.as_ref());
    let text = std::fs::read_to_string(written).unwrap();
    let moved = text.replace(&next.0.display().to_string(), &agent.folder.0.display().to_string());
    std::fs::rename(agent.folder.file("next.toml", &moved), &agent.config).unwrap();
    agent.signal(libc::SIGHUP);
}

/// One round after another, each waited for.
fn storm(agent: &Agent, rounds: std::ops::Range<u64>, container: &str) {
    for round in rounds {
        if round % BAD == 1 {
            reload(agent, "[tracer.cpuidle]\nevery = \"never\"\n");
            agent.said.wait("a refusal", SOON, |line| line.contains("is refused").then_some(()));
        } else {
            reload(agent, rules(round, container, 100));
            agent.said.wait("a reload", SOON, |line| line.contains("reloaded; changed: ").then_some(()));
        }
    }
}

/// Asks for captures until it is over, one after another. The ids of their events.
fn ask(client: &Path, arguments: &[&str], over: &AtomicBool) -> Vec<String> {
    let mut ids = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let asked = run(command(ONSET).arg("trigger").arg("--config").arg(client).args(arguments));
        let said = String::from_utf8_lossy(&asked.stderr);
        if asked.status.success() {
            ids.push(String::from_utf8(asked.stdout).unwrap().trim().to_owned());
        } else {
            assert!(said.contains("memburst is disabled in the config"), "{arguments:?}: {said}");
        }
    }
    ids
}

fn spin(cgroup: &Cgroup) -> KillOnDrop {
    cgroup.start(command("sh").args(["-c", "while :; do :; done"]))
}

/// How many samples of this container waitrate remembers.
fn history(agent: &Agent, client: &Path, container: &str) -> f64 {
    let arguments = ["waitrate", "--container", container, "--seconds", "1"];
    let id = done(command(ONSET).arg("trigger").arg("--config").arg(client).args(arguments));
    let event = agent.event("its event", SOON, |event| event["tracer_id"] == id.trim());
    event.pointer("/tracer_data/baseline_samples").and_then(Value::as_f64).unwrap_or(0.0)
}

/// Events that a rule of cpuidle asked for, by container.
fn surges(agent: &Agent) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    let events = agent.events().into_iter();
    for event in events.filter(|event| event["tracer_name"] == "cpuidle" && event["tracer_type"] != "manual")
    {
        *counts.entry(event["container_id"].as_str().unwrap_or("host").to_owned()).or_default() += 1;
    }
    counts
}

#[test]
fn a_storm_of_reloads_loses_no_event_history_or_cooldown() {
    if !root("a storm of reloads") {
        return;
    }
    // Both are watched, and nobody else is.
    let (early, late) = (Cgroup::new("storm"), Cgroup::new("storm"));
    let ours = &early.id[..40];
    let agent = Agent::start(&rules(0, ours, 100));
    let client: PathBuf = agent.folder.file("client.toml", &std::fs::read_to_string(&agent.config).unwrap());
    let _early = spin(&early);
    agent.event("its event", SOON, |event| event["container_id"] == early.id.as_str());
    let before = await_that("a history", SOON * 2, || {
        Some(history(&agent, &client, &early.id)).filter(|samples| *samples >= 3.0)
    });
    let samples = || agent.metric("onset_samples_total{tracer=\"cpuidle\"}").unwrap();
    let (looked, began) = (samples(), std::time::Instant::now());
    let _late = spin(&late);
    let over = AtomicBool::new(false);
    let asked: [&[&str]; 5] = [
        &["cpuidle", "--container", &early.id, "--seconds", "1"],
        &["dload"],
        &["waitrate", "--container", &early.id, "--seconds", "1"],
        &["memburst", "--seconds", "1"],
        &["memburst", "--container", &early.id, "--seconds", "2"],
    ];
    let ids: Vec<Vec<String>> = std::thread::scope(|scope| {
        let (client, over) = (&client, &over);
        let asking = asked.map(|arguments| scope.spawn(move || ask(client, arguments, over)));
        storm(&agent, 1..STORM, ours);
        over.store(true, Ordering::Relaxed);
        asking.map(|asking| asking.join().unwrap()).into()
    });
    let took = began.elapsed();
    println!(
        "{STORM} reloads in {took:?} with {:?} captures; longest turn {:?} s",
        ids.iter().map(Vec::len).collect::<Vec<_>>(),
        agent.metric("onset_loop_longest_turn_seconds").unwrap()
    );
    for (arguments, ids) in asked.iter().zip(&ids) {
        assert!(!ids.is_empty(), "{arguments:?} brought nothing");
    }
    // Those that were asked for are all there are, each once.
    let events = agent.events();
    let of = |id: &String| events.iter().filter(|event| event["tracer_id"] == id.as_str()).count();
    assert!(ids.iter().flatten().all(|id| of(id) == 1));
    let known = history(&agent, &client, &early.id);
    assert!(known > before, "{known} samples are remembered, and were {before} before");
    agent.event("what began in the storm", SOON, |event| event["container_id"] == late.id.as_str());
    assert!(samples() > looked + 5.0, "it looked meanwhile");
    assert_eq!(surges(&agent), BTreeMap::from([(early.id.clone(), 1), (late.id.clone(), 1)]));
    let manual = |events: &[Value]| events.iter().filter(|event| event["tracer_type"] == "manual").count();
    assert_eq!(manual(&events), ids.iter().map(Vec::len).sum::<usize>() + manual(&earlier(&events, &ids)));

    let held = |name: &str| agent.metric(name).unwrap();
    let [memory, files] = ["process_resident_memory_bytes", "process_open_fds"].map(held);
    // Then back to the config of before: what it takes is its own.
    storm(&agent, STORM..STORM + AFTER, ours);
    reload(&agent, rules(STORM - 1, ours, 100));
    agent.said.wait("the last", SOON, |line| line.contains("reloaded; changed: ").then_some(()));
    let memory_after = held("process_resident_memory_bytes");
    println!("{AFTER} more: {memory} bytes, then {memory_after}");
    assert!(memory_after - memory <= GROWN_MAX, "{memory} bytes, then {memory_after}");
    // A PSI trigger is given back by a thread that waits for the kernel.
    await_that("as few descriptors", SOON, || (held("process_open_fds") <= files).then_some(()));
    let refused = (STORM + AFTER) / BAD;
    assert_eq!(
        agent.metric("onset_faults_total{tracer=\"onset\",fault=\"reload_refused\"}"),
        Some(refused as f64)
    );
    // A burst that nobody waits for ends with the last of its configs.
    (0..200).for_each(|round| reload(&agent, rules(round, ours, 100)));
    reload(&agent, rules(1, ours, 99));
    agent.said.wait("the last one", SOON, |line| line.contains("[capture]").then_some(()));
    assert_eq!(agent.metric("onset_tracer_state{tracer=\"memburst\",state=\"disabled\"}"), Some(1.0));
    assert_eq!(surges(&agent).values().sum::<usize>(), 2, "they are quiet still");
    assert_eq!(agent.leave(), Some(0));
}

/// Events that were asked for before the storm.
fn earlier(events: &[Value], ids: &[Vec<String>]) -> Vec<Value> {
    let storm = |event: &&Value| ids.iter().flatten().any(|id| event["tracer_id"] == id.as_str());
    events.iter().take_while(|event| !storm(event)).cloned().collect()
}

#[test]
fn a_capture_whose_tracer_is_disabled_still_makes_its_event() {
    if !root("a disabled tracer") {
        return;
    }
    let agent = Agent::start(&rules(0, "none", 100));
    let client = agent.folder.file("client.toml", &std::fs::read_to_string(&agent.config).unwrap());
    let mut asking =
        start(command(ONSET).args(["trigger", "memburst", "--seconds", "2", "--config"]).arg(&client));
    let open = || {
        let status = done(&mut agent.onset(&["status", "--json"]));
        serde_json::from_str::<Value>(&status).unwrap()["captures_open"].as_u64().unwrap()
    };
    await_that("the capture", SOON, || (open() == 1).then_some(()));
    reload(&agent, rules(1, "none", 100));
    agent.said.wait("the reload", SOON, |line| line.contains("memburst").then_some(()));
    assert_eq!(agent.metric("onset_tracer_state{tracer=\"memburst\",state=\"disabled\"}"), Some(1.0));
    let refused = run(&mut agent.onset(&["trigger", "memburst", "--seconds", "1"]));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("disabled"), "{refused:?}");
    let ended = await_that("its end", SOON, || asking.0.try_wait().unwrap());
    assert!(ended.success(), "whoever asked has its event");
    let event = agent.event("the event", SOON, |event| event["tracer_name"] == "memburst");
    assert!(number(&event, "/tracer_data/duration_ms") >= 1900.0, "it was not cut short: {event:#}");
    assert_eq!(agent.leave(), Some(0));
}

#[test]
fn an_oom_kill_just_before_oom_is_disabled_is_reported() {
    if !root("kills before a reload") {
        return;
    }
    let folder = Folder::new();
    let eater = compile(&folder, "eater", EATER);
    let cgroup = Cgroup::new("last");
    small(&cgroup);
    let text = |on: bool| {
        rules(1, "none", 100)
            .replace("[tracer.oom]\nenabled = false", &format!("[tracer.oom]\nenabled = {on}"))
    };
    let agent = Agent::start(&text(true));
    let mut killed = Vec::new();
    for _ in 0..3 {
        // It finds the record and the signal at the same time.
        agent.signal(libc::SIGSTOP);
        killed.push(eat(&cgroup, &mut command(&eater)));
        reload(&agent, text(false));
        agent.signal(libc::SIGCONT);
        agent.said.wait("off", SOON, |line| line.ends_with("changed: oom").then_some(()));
        eat(&cgroup, &mut command(&eater));
        reload(&agent, text(true));
        agent.said.wait("on", SOON, |line| line.ends_with("changed: oom").then_some(()));
    }
    let last = eat(&cgroup, &mut command(&eater));
    killed.push(last);
    agent.event("the last kill", SOON, |event| event["tracer_data"]["victim"]["pid"] == last);
    let told: Vec<Value> =
        agent.events().iter().map(|event| event["tracer_data"]["victim"]["pid"].clone()).collect();
    assert_eq!(told, killed, "each while it is on, once, and none while it is off");
    assert_eq!(agent.metric("onset_oom_kills_total"), Some(4.0), "a count goes on");
    println!("longest turn {:?} s", agent.metric("onset_loop_longest_turn_seconds").unwrap());
    assert_eq!(agent.leave(), Some(0));
}

/// A config with `oom` alone, on or off.
fn oom(on: bool) -> String {
    only("oom", &format!("enabled = {on}"))
}

/// Whether `oom` is in this state.
fn is(agent: &Agent, state: &str) -> bool {
    agent.metric(&format!("onset_tracer_state{{tracer=\"oom\",state=\"{state}\"}}")) == Some(1.0)
}

/// Calls that its own filter refused.
fn refused_calls(agent: &Agent) -> Option<f64> {
    agent.metric("onset_faults_total{tracer=\"onset\",fault=\"refused_syscall\"}")
}

/// Whether its programs are attached.
fn attached(agent: &Agent) -> bool {
    agent.metric("onset_bpf_program_state{program=\"oom\",state=\"attached\"}") == Some(1.0)
}

#[test]
fn the_loop_goes_on_while_a_hook_is_loaded_and_the_reload_says_so_when_it_is_attached() {
    if !root("a hook that is loaded later") {
        return;
    }
    let folder = Folder::new();
    let eater = compile(&folder, "eater", EATER);
    let cgroup = Cgroup::new("later");
    small(&cgroup);
    let agent = Agent::start(&oom(false));
    assert!(is(&agent, "disabled") && !attached(&agent));
    let mut killed = Vec::new();
    // Who asks may come too late to see it: then once more.
    await_that("a look at the agent while the hook is loaded", SOON * 2, || {
        reload(&agent, oom(true));
        let mut loading = false;
        await_that("the hook", SOON, || {
            let (status, ready) = agent.get("/readyz");
            if ready.contains("oom loading: its hook is being loaded") {
                assert_eq!(status, 503, "{ready}");
                loading = true;
            }
            (status == 200 && ready.contains("oom active")).then_some(())
        });
        agent.said.wait("the reload", SOON, |line| line.ends_with("changed: oom").then_some(()));
        assert!(attached(&agent));
        killed.push(eat(&cgroup, &mut command(&eater)));
        reload(&agent, oom(false));
        agent.said.wait("off", SOON, |line| line.ends_with("changed: oom").then_some(()));
        assert!(is(&agent, "disabled") && !attached(&agent));
        eat(&cgroup, &mut command(&eater));
        loading.then_some(())
    });
    let told: Vec<Value> =
        agent.events().iter().map(|event| event["tracer_data"]["victim"]["pid"].clone()).collect();
    assert_eq!(told, killed, "each kill between two reloads that turn it on and off");
    assert_eq!(refused_calls(&agent), Some(0.0));
    println!("longest turn {:?} s", agent.metric("onset_loop_longest_turn_seconds").unwrap());
    assert_eq!(agent.leave(), Some(0));
}

#[test]
fn reloads_while_a_hook_is_loaded_end_with_what_the_last_config_says() {
    if !root("reloads while a hook is loaded") {
        return;
    }
    let folder = Folder::new();
    let eater = compile(&folder, "eater", EATER);
    let cgroup = Cgroup::new("last");
    small(&cgroup);
    let agent = Agent::start(&oom(false));
    let files = || agent.metric("process_open_fds");
    let mut held = None;
    for round in 0..5 {
        // Each is read while the hook of one before is still being loaded, if not at once with it.
        for on in [true, false, true, false, true] {
            reload(&agent, oom(on));
            let (status, _) = agent.get("/healthz");
            assert_eq!(status, 200);
        }
        await_that("the hook", SOON, || (is(&agent, "active") && attached(&agent)).then_some(()));
        let killed = eat(&cgroup, &mut command(&eater));
        let of = |event: &Value| event["tracer_data"]["victim"]["pid"] == killed;
        agent.event("the kill", SOON, of);
        assert_eq!(agent.events().len(), round + 1, "one event, however many hooks were loaded");
        for on in [false, true, false] {
            reload(&agent, oom(on));
            agent.get("/healthz");
        }
        await_that("none", SOON, || (is(&agent, "disabled") && !attached(&agent)).then_some(()));
        // What its programs cost is counted from the first one on, by descriptors that stay.
        held = held.or_else(files);
        await_that("its descriptors", SOON, || (files() <= held).then_some(()));
    }
    assert_eq!(refused_calls(&agent), Some(0.0));
    assert_eq!(agent.leave(), Some(0));
}

#[test]
fn a_hook_that_cannot_be_loaded_is_told_with_its_reason_and_can_be_later() {
    if !root("a hook that cannot be loaded") {
        return;
    }
    let agent = Agent::start(&oom(false));
    let limit = |files: u64| {
        let pid = agent.pid().to_string();
        done(command("prlimit").args(["--pid", &pid, &format!("--nofile={files}:4096")]));
    };
    // One for the config, and too few for the hook's maps.
    let open = |number: &u64| std::fs::exists(format!("/proc/{}/fd/{number}", agent.pid())).unwrap();
    let second = (0..).filter(|number| !open(number)).nth(1).unwrap();
    limit(second + 1);
    reload(&agent, oom(true));
    let reason =
        agent.said.wait("the reason", SOON, |line| line.strip_prefix("onset: oom off: ").map(str::to_owned));
    agent.said.wait("the reload", SOON, |line| line.ends_with("changed: oom").then_some(()));
    limit(4096);
    assert!(is(&agent, "unsupported"), "{reason}");
    let status: Value = serde_json::from_str(&done(&mut agent.onset(&["status", "--json"]))).unwrap();
    let tracers = status["tracers"].as_array().unwrap();
    let tracer = tracers.iter().find(|tracer| tracer["name"] == "oom").unwrap();
    assert_eq!((&tracer["state"], &tracer["reason"]), (&"unsupported".into(), &reason.into()));
    reload(&agent, oom(true).replace("enabled = true", "enabled = true\ncooldown = \"7s\""));
    agent.said.wait("the reload", SOON, |line| line.ends_with("changed: oom").then_some(()));
    assert!(is(&agent, "active") && attached(&agent));
    assert_eq!(agent.leave(), Some(0));
}

//! Kill -9 while events are being written: what someone was shown is in the log.

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::rig::{Agent, Lines, ONSET, SOON, await_that, command, done, only, root, run, start};

const ROUNDS: u32 = 20;

#[test]
fn events_that_were_printed_survive_a_kill_at_any_moment() {
    if !root("kill -9") {
        return;
    }
    let mut seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64 | 1;
    println!("seed {seed}");
    let mut agent = Agent::start(&only("dload", "every = \"1h\""));
    // The follower outlives the agents: it reads the log, not the agent.
    let mut follower = start(agent.onset(&["events", "--follow", "--json"]).stdout(Stdio::piped()));
    let followed = Lines::of(follower.0.stdout.take().unwrap());
    let mut shown: Vec<String> = Vec::new();
    for round in 0..ROUNDS {
        let stop = AtomicBool::new(false);
        let before = shown.len();
        let (stop, config) = (&stop, &agent.config);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        run(command(ONSET).args(["trigger", "dload", "--config"]).arg(config));
                    }
                });
            }
            let id = |line: &str| {
                let event: Value = serde_json::from_str(line).unwrap();
                Some(event["tracer_id"].as_str().unwrap().to_owned())
            };
            shown.push(followed.wait("an event of this round", SOON, id));
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            std::thread::sleep(Duration::from_micros(seed % 200_000));
            agent.signal(libc::SIGKILL);
            stop.store(true, Ordering::Relaxed);
        });
        agent.child.0.wait().unwrap();
        // What it showed until then is all there, before anyone repaired anything.
        std::thread::sleep(Duration::from_millis(200));
        shown.extend(followed.come().iter().map(|line| {
            let event: Value = serde_json::from_str(line).unwrap();
            event["tracer_id"].as_str().unwrap().to_owned()
        }));
        assert!(shown.len() > before, "round {round}");
        let verified = run(&mut agent.onset(&["verify"]));
        assert_eq!(verified.status.code(), Some(0), "{}", String::from_utf8_lossy(&verified.stdout));
        agent.again();
        let kept: Vec<String> =
            agent.events().iter().map(|event| event["tracer_id"].as_str().unwrap().to_owned()).collect();
        let lost: Vec<_> = shown.iter().filter(|id| !kept.contains(id)).collect();
        assert!(lost.is_empty(), "round {round}: shown, but not kept: {lost:?}");
        let mut distinct = kept.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), kept.len(), "round {round}: an id was used twice");
    }
    println!("{} events in {ROUNDS} rounds", shown.len());
    assert!(done(&mut agent.onset(&["verify"])).contains("records"));
}

#[test]
fn a_new_agent_starts_at_once_after_the_old_one_was_killed() {
    if !root("kill -9") {
        return;
    }
    let mut agent = Agent::start("[capture]\nbudget_percent = 100\n");
    // From now on each agent listens on the same port. No other program takes one of this loopback address.
    let address: SocketAddr = ([127, 1, 100, 1], agent.address.port()).into();
    let config = std::fs::read_to_string(&agent.config).unwrap();
    std::fs::write(&agent.config, config.replace("127.0.0.1:0", &address.to_string())).unwrap();
    for round in 0..10 {
        // An agent that captures has more to close while it exits.
        let _trigger = start(agent.onset(&["trigger", "cpusys", "--seconds", "30"]).stderr(Stdio::null()));
        await_that("an open capture", SOON, || {
            let status: Value = serde_json::from_str(&done(&mut agent.onset(&["status", "--json"]))).unwrap();
            (status["captures_open"] == 1).then_some(())
        });
        agent.signal(libc::SIGKILL);
        // Nobody waits for the killed agent before the next one starts.
        agent.again();
        assert_eq!(agent.address, address, "round {round}");
    }
    assert_eq!(agent.leave(), Some(0));
}

//! Kill -9 while events are being written: what someone was shown is in the log.

use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::rig::{Agent, Lines, ONSET, SOON, command, done, only, root, run, start};

const ROUNDS: u32 = 20;

#[test]
fn what_was_shown_survives_a_kill_at_any_moment() {
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

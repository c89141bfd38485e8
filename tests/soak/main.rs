//! The real agent with every tracer on, all anomalies in turn, a server that goes and comes, and
//! configs that change: at the end nothing has grown, nothing is lost, and nothing was told that did
//! not happen. `make soak SECONDS=300`; it needs root.
#![allow(missing_docs, dead_code, clippy::unwrap_used, clippy::cast_possible_truncation)]

#[path = "../live/cgroup.rs"]
mod cgroup;
mod ended;
#[path = "../ship/fake.rs"]
mod fake;
#[path = "../live/frozen.rs"]
mod frozen;
#[path = "../ship/http.rs"]
mod http;
mod index;
#[path = "../live/rig.rs"]
mod rig;
mod workloads;

use std::time::{Duration, Instant};

use crate::ended::{ResourceUse, explained, longest_turn, shipped};
use crate::index::Index;
use crate::rig::{Agent, SOON, done, root};
use crate::workloads::Work;

/// Short enough that each anomaly is told each time it is caused.
pub const COOLDOWN: Duration = Duration::from_secs(5);

/// The contract's 10 ms, three times: there is always more to do here than this machine can.
const LONGEST_TURN: Duration = Duration::from_millis(30);

fn lasting() -> Duration {
    let words = std::env::var("ONSET_SOAK_SECONDS");
    Duration::from_secs(words.map_or(300, |words| words.parse().expect("ONSET_SOAK_SECONDS is a number")))
}

/// Every tracer, quick to fire, for containers of ours alone: whatever else runs here is not told of.
/// `changing` is what a reload changes.
fn config(url: &str, ours: &str, changing: usize) -> String {
    let tracers: String = onset::tracer::TRACERS
        .iter()
        .map(|spec| {
            let more = match spec.name {
                "cpusys" => "system_percent = 10\nsystem_rise = 1\nsustained_samples = 3",
                "dload" => "load = 2.0\nstuck = \"3s\"",
                "waitrate" => "probe = \"500ms\"\nprobe_every = \"1s\"",
                "memburst" if changing % 2 == 1 => "top = 9",
                "iotracing" => "util_percent = 50\nstall = \"10ms\"",
                _ => "",
            };
            format!(
                "[tracer.{}]\nevery = \"1s\"\ncapture = \"1s\"\ncooldown = \"{}s\"\ninclude = [\"id:{ours}*\"]\n{more}\n",
                spec.name,
                COOLDOWN.as_secs()
            )
        })
        .collect();
    format!(
        "[elasticsearch]\nurl = \"{url}\"\nflush = \"{}ms\"\nretry = \"500ms\"\n[capture]\nbudget_percent = 100\n{tracers}",
        200 + changing % 3 * 100
    )
}

/// Reloads a config that is good, or one that is not. How many were refused.
fn reload(agent: &Agent, url: &str, ours: &str, round: usize) -> u64 {
    let folder = &agent.folder;
    rig::config(folder, "", &config(url, ours, round));
    agent.signal(libc::SIGHUP);
    agent.said.wait("word of a reload", SOON, |line| line.contains("config reloaded").then_some(()));
    rig::config(folder, "", "[tracer.cpuidle]\nevery = \"never\"\n");
    agent.signal(libc::SIGHUP);
    agent.said.wait("word of a refusal", SOON, |line| line.contains("is refused").then_some(()));
    rig::config(folder, "", &config(url, ours, round));
    1
}

/// Gives the loop a CPU whenever it wants one: what is asked for is how long its turns take, and not
/// how long it waits for those who burn all CPUs here. Threads that it starts are like any other.
fn goes_first(pid: u32) {
    let least = libc::sched_param { sched_priority: 1 };
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    // SAFETY: the parameter lives through the call; the child is ours and not yet waited for.
    assert_eq!(unsafe { libc::sched_setscheduler(pid.cast_signed(), policy, &raw const least) }, 0);
}

#[test]
fn the_agent_neither_grows_nor_loses_events_through_anomalies_outages_and_reloads() {
    if !root("the soak") {
        return;
    }
    let (began, lasting) = (Instant::now(), lasting());
    let index = Index::new();
    let mut work = Work::new();
    let agent = Agent::start(&config(&index.url(), work.ours(), 0));
    goes_first(agent.pid());
    let (mut rounds, mut refused, mut before) = (0, 0, None);
    std::thread::scope(|scope| {
        let outages = scope.spawn(|| index.comes_and_goes());
        let _over = index::Over(&index);
        while rounds < 2 || began.elapsed() < lasting {
            work.round(&agent);
            // One more than at the start: each reload changes something.
            refused += reload(&agent, &index.url(), work.ours(), rounds + 1);
            rounds += 1;
            // What a first round of everything leaves is what an agent is; more would be growth.
            before.get_or_insert_with(|| ResourceUse::of(&agent));
        }
        index.over();
        assert!(outages.join().unwrap() > 0, "the server was gone at least once");
    });
    let kept = shipped(&agent, &index, refused);
    let after = ResourceUse::of(&agent);
    let longest = longest_turn(&agent);
    println!(
        "{rounds} rounds in {} s: {kept} events; {before:?}, then {after:?}; longest turn {longest:?}",
        began.elapsed().as_secs()
    );
    after.is_no_more_than(&before.unwrap());
    explained(&agent, &work, began.elapsed());
    assert!(longest <= LONGEST_TURN, "a turn took {longest:?}");
    let mut verify = agent.onset(&["verify"]);
    done(&mut verify);
    assert_eq!(agent.leave(), Some(0));
}

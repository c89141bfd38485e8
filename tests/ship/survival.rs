//! 20,000 documents, a server that stops and an agent that is killed: every document is there once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::fixture::{config, events_by, shipped, socket};
use crate::opensearch::OpenSearch;
use crate::rig::{Agent, Folder, SOON, await_that, root};

const DOCUMENTS: usize = 20_000;
const ROUNDS: usize = 10;
/// Events of one round at the most, and the time between two: the rest is for the end.
const PER_ROUND: usize = DOCUMENTS / ROUNDS * 4 / 5;
const PACE: Duration = Duration::from_millis(4);

#[test]
fn each_of_20000_documents_is_indexed_once_through_server_stops_and_agent_kills() {
    if !root("kill -9") {
        return;
    }
    let folder = Folder::new();
    let Some(mut server) = OpenSearch::start("survival", &folder.0) else { return };
    let mut seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64 | 1;
    println!("seed {seed}");
    let mut draw = move |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    let mut agent = Agent::start(&config(&server.url(), "batch = \"64KiB\"\ncatch_up = \"0B\""));
    for round in 0..ROUNDS {
        let busy = AtomicBool::new(true);
        std::thread::scope(|scope| {
            let (socket, busy) = (socket(&agent), &busy);
            // Events come all the while, whatever the server does, until the agent is gone: at a pace at
            // which no machine is done with all of them before the last round.
            scope.spawn(move || {
                for _ in 0..PER_ROUND {
                    if !busy.load(Ordering::Relaxed) || events_by(&socket, 1) == 0 {
                        break;
                    }
                    std::thread::sleep(PACE);
                }
            });
            if round % 2 == 0 {
                server.stop();
            } else {
                server.kill();
            }
            // The agent dies in an outage, or while it catches up after one.
            if draw(2) == 0 {
                server.again();
            }
            std::thread::sleep(Duration::from_millis(draw(1500)));
            agent.signal(libc::SIGKILL);
            busy.store(false, Ordering::Relaxed);
        });
        agent.child.0.wait().unwrap();
        agent.again();
        if server.is_down() {
            server.again();
        }
    }
    // The log itself says how many there are; no agent is killed from here on.
    let kept = agent.events().len();
    assert!((500..DOCUMENTS).contains(&kept), "{kept} events in {ROUNDS} rounds");
    println!("{kept} events before the last round");
    let missing = DOCUMENTS - kept;
    let socket = &socket(&agent);
    std::thread::scope(|scope| {
        let part = |thread: usize| missing / 4 + if thread == 0 { missing % 4 } else { 0 };
        let made: Vec<_> =
            (0..4).map(|thread| scope.spawn(move || events_by(socket, part(thread)))).collect();
        let made: usize = made.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert_eq!(made, missing);
    });
    shipped(&agent, SOON * 6);
    let mut written: Vec<String> =
        agent.events().iter().map(|event| event["tracer_id"].as_str().unwrap().to_owned()).collect();
    written.sort_unstable();
    written.dedup();
    assert_eq!(written.len(), DOCUMENTS);
    // `_id` is unique in an index: as many documents as ids are the same documents.
    let count = await_that("the index to be whole", SOON, || {
        let count = server.count("onset");
        (count >= DOCUMENTS as u64).then_some(count)
    });
    assert_eq!(count, DOCUMENTS as u64);
    for id in written.iter().step_by(199) {
        assert_eq!(server.get(&format!("/onset/_doc/{id}")).0, 200, "{id}");
    }
    assert_eq!(agent.metric("onset_ship_documents_total{outcome=\"rejected\"}"), Some(0.0));
    assert_eq!(agent.leave(), Some(0));
}

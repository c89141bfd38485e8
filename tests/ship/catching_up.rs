//! How fast a log is caught up with, beside what the same server does with bodies that are ready.

use std::time::{Duration, Instant};

use crate::fixture::{document, folder, write};
use crate::opensearch::{Borrowed, shared};
use crate::rig::{Agent, Folder, SOON, await_that, command, done, root};

const DOCUMENTS: usize = 12_000;
const BATCH: usize = 1 << 20;
const ROUNDS: usize = 4;
/// Of the server's own limit.
const SHARE: f64 = 0.8;

/// Has curl send all of it, body by body on one connection. Returns how long that took.
fn by_curl(server: &Borrowed, bodies: &Folder, index: &str) -> Duration {
    let mut curl = command("curl");
    curl.args(["-sS", "--fail", "-o", "/dev/null"]);
    let mut names: Vec<_> =
        std::fs::read_dir(&bodies.0).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    for (number, name) in names.iter().enumerate() {
        if number > 0 {
            curl.args(["--next", "-sS", "--fail", "-o", "/dev/null"]);
        }
        curl.args(["-H", "Content-Type: application/x-ndjson", "--data-binary"]);
        curl.arg(format!("@{}", name.display()));
        curl.arg(format!(
            "{}/{index}/_bulk?filter_path=items.*._id,items.*.status,items.*.error",
            server.url()
        ));
    }
    let began = Instant::now();
    done(&mut curl);
    began.elapsed()
}

/// Has an agent catch up with a log that is there already. Returns how long that took.
fn by_onset(server: &Borrowed, index: &str) -> Duration {
    // Plain, as curl sends it.
    let more = format!("index = \"{index}\"\ncatch_up = \"0B\"\ncompress = false");
    let (folder, config) = folder(&server.url(), "", &more);
    write(&config, DOCUMENTS);
    let agent = Agent::start_in(folder, config);
    // Not often: a scrape takes CPU that the server wants.
    let created = || {
        std::thread::sleep(Duration::from_millis(30));
        agent.metric("onset_ship_documents_total{outcome=\"created\"}").unwrap()
    };
    // From its first batch on: a start is no catching up.
    let (began, first) = await_that("the first batch", SOON * 2, || {
        let first = created();
        (first > 0.0).then(|| (Instant::now(), first))
    });
    await_that("the rest", SOON * 6, || (created() == DOCUMENTS as f64).then_some(()));
    let whole = DOCUMENTS as f64 / (DOCUMENTS as f64 - first);
    let took = began.elapsed().mul_f64(whole);
    assert_eq!(agent.leave(), Some(0));
    took
}

#[test]
fn catching_up_is_at_least_four_fifths_as_fast_as_the_server_allows() {
    if !root("shipping") {
        return;
    }
    let Some(server) = shared("catching up") else { return };
    let bodies = Folder::new();
    let (mut body, mut files) = (String::new(), 0);
    for number in 0..DOCUMENTS {
        let id = format!("{number:032x}");
        body.push_str(&format!("{{\"create\":{{\"_id\":\"{id}\"}}}}\n{}\n", document(number, &id)));
        if body.len() >= BATCH || number + 1 == DOCUMENTS {
            std::fs::write(bodies.0.join(format!("{files:04}")), &body).unwrap();
            body.clear();
            files += 1;
        }
    }
    // The first of each warms the server up. Then in turns, since the machine's speed drifts.
    by_curl(&server, &bodies, "warm-0");
    let mut ratios: Vec<f64> = (0..ROUNDS)
        .map(|round| {
            let curl = by_curl(&server, &bodies, &format!("curl-{round}"));
            let onset = by_onset(&server, &format!("caught-up-{round}"));
            assert_eq!(server.count(&format!("caught-up-{round}")), DOCUMENTS as u64);
            let ratio = curl.as_secs_f64() / onset.as_secs_f64();
            println!(
                "{DOCUMENTS} documents: curl {curl:?}, onset {onset:?}: {ratio:.2} of the server's limit"
            );
            ratio
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    let median = f64::midpoint(ratios[ROUNDS / 2 - 1], ratios[ROUNDS / 2]);
    assert!(median >= SHARE, "{median:.2} of what the server takes from curl: {ratios:.2?}");
}

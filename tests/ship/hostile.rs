//! What a real server won't do on demand: for each, the outcome that the agent must come to, with its
//! memory bounded and its loop not held up.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::fake::{Answer, Fake, Request};
use crate::fixture::{config, events, outcomes, shipped};
use crate::rig::{Agent, SOON, await_that, root, run};

/// Of the contract: 10 ms, times 3 for machines that are busy with others.
const LONGEST_TURN: f64 = 0.030;
/// An agent that holds a batch and its reply; the budget of an idle one is another matter.
const RESIDENT_MAX: f64 = 48.0 * 1024.0 * 1024.0;

/// Documents by how often the server took them.
type Taken = Arc<Mutex<BTreeMap<String, u32>>>;

/// A server that misbehaves for so many requests, and then takes everything.
fn server(
    bad: usize,
    misbehave: impl Fn(&Request, usize) -> Answer + Send + Sync + 'static,
) -> (Fake, Taken) {
    let taken = Taken::default();
    let theirs = taken.clone();
    let fake = Fake::start(move |request, before| {
        if before < bad {
            return misbehave(request, before);
        }
        take(request, &theirs, |_| None)
    });
    (fake, taken)
}

/// Takes what `fate` has nothing to say of, as a real index does.
fn take(request: &Request, taken: &Taken, fate: impl Fn(&str) -> Option<u16>) -> Answer {
    let mut taken = taken.lock().unwrap();
    let mut statuses = BTreeMap::new();
    for id in request.ids() {
        let status = fate(&id).unwrap_or_else(|| {
            let times = taken.entry(id.clone()).or_insert(0);
            *times += 1;
            if *times == 1 { 201 } else { 409 }
        });
        statuses.insert(id, status);
    }
    Answer::items(request, |id| statuses[id])
}

/// Checks what holds whatever the server does.
fn is_well(agent: &Agent) {
    let turn = agent.metric("onset_loop_longest_turn_seconds").unwrap();
    assert!(turn < LONGEST_TURN, "a turn of {turn} s");
    let resident = agent.metric("process_resident_memory_bytes").unwrap();
    assert!(resident < RESIDENT_MAX, "{resident} bytes resident");
}

/// Ships 20 events past a server that misbehaves first. Returns what the agent said meanwhile.
fn outlives(fake: &Fake, taken: &Taken, more: &str) -> Vec<String> {
    let agent = Agent::start(&config(&fake.url(), more));
    assert_eq!(events(&agent, 20), 20);
    shipped(&agent, SOON * 2);
    is_well(&agent);
    let ids: Vec<String> =
        agent.events().iter().map(|event| event["tracer_id"].as_str().unwrap().to_owned()).collect();
    let taken: Vec<String> = taken.lock().unwrap().keys().cloned().collect();
    assert_eq!(taken, ids, "every event is there");
    let [created, duplicates, rejected] = outcomes(&agent);
    assert_eq!((created + duplicates, rejected), (20.0, 0.0));
    let said = agent.said.come();
    assert_eq!(agent.leave(), Some(0));
    said
}

#[test]
fn the_shipper_survives_every_kind_of_server_failure() {
    if !root("shipping") {
        return;
    }
    type Misbehave = fn(&Request, usize) -> Answer;
    let ways: [(&str, Misbehave, &str); 10] = [
        ("closing without a word", |_, _| Answer::close(), "cannot ship"),
        ("closing mid-response", |request, _| Answer::created(request).cut(7), "cannot ship"),
        ("never answering", |_, _| Answer::never(), "took too long"),
        (
            "one byte at a time, for longer than anyone waits",
            |request, _| Answer::created(request).slowly(Duration::from_millis(20)),
            "took too long",
        ),
        ("a reply without an end", |_, _| Answer::new(200, vec![b' '; 64 << 10]).endless(), "longer than"),
        ("a reply that is none", |_, _| Answer::new(200, "<html>login</html>"), "not one to a bulk request"),
        (
            "a reply about others",
            |_, _| Answer::new(200, "{\"items\":[{\"create\":{\"_id\":\"x\",\"status\":201}}]}"),
            "does not fit",
        ),
        ("an overload", |_, _| Answer::new(503, "busy"), "HTTP 503"),
        ("a gateway's page", |_, _| Answer::new(502, "<html>bad gateway</html>"), "HTTP 502"),
        (
            "a 200 in chunks that breaks off",
            |_, _| Answer::new(200, "{\"items\":[").chunked(),
            "not one to a bulk",
        ),
    ];
    for (name, misbehave, word) in ways {
        let (fake, taken) = server(2, misbehave);
        let said = outlives(&fake, &taken, "timeout = \"500ms\"");
        let line = said.iter().find(|line| line.contains(word));
        assert!(line.is_some(), "{name}: nobody said \"{word}\": {said:#?}");
        assert!(said.iter().any(|line| line.contains("again; ")), "{name}: {said:#?}");
    }
}

#[test]
fn failed_items_of_a_batch_are_retried_alone_and_bad_ones_rejected() {
    if !root("shipping") {
        return;
    }
    let taken = Taken::default();
    let (theirs, counts) = (taken.clone(), Mutex::new((0_u32, Vec::<String>::new())));
    let doomed: Arc<Mutex<Option<String>>> = Arc::default();
    let known = doomed.clone();
    let fake = Fake::start(move |request, _| {
        let mut counts = counts.lock().unwrap();
        // The first that comes is bad; of the others every third fails twice.
        let ids = request.ids();
        let bad = known.lock().unwrap().get_or_insert_with(|| ids[0].clone()).clone();
        let failing: Vec<String> = ids.iter().skip(1).step_by(3).cloned().collect();
        counts.0 += 1;
        let retry = counts.0 <= 2;
        take(request, &theirs, |id| {
            if *id == *bad {
                return Some(400);
            }
            (retry && failing.iter().any(|failing| failing == id)).then_some(429)
        })
    });
    let agent = Agent::start(&config(&fake.url(), "flush = \"3s\"").replace("flush = \"50ms\"\n", ""));
    assert_eq!(events(&agent, 20), 20);
    shipped(&agent, SOON * 2);
    is_well(&agent);
    assert_eq!(outcomes(&agent), [19.0, 0.0, 1.0]);
    assert!(taken.lock().unwrap().values().all(|times| *times == 1), "what was taken is not sent again");
    let bad = doomed.lock().unwrap().clone().unwrap();
    let listed = run(&mut agent.onset(&["events", "--rejected"]));
    let text = String::from_utf8(listed.stdout).unwrap();
    assert!(text.contains(&bad) && text.contains("HTTP 400"), "{text}");
    assert_eq!(text.lines().count(), 2, "{text}");
    let json = run(&mut agent.onset(&["events", "--rejected", "--json"]));
    let event: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(event["tracer_id"], *bad);
    assert_eq!(agent.said.come().iter().filter(|line| line.contains("will not take event")).count(), 1);
}

#[test]
fn retry_after_is_honoured_and_a_too_large_batch_is_halved() {
    if !root("shipping") {
        return;
    }
    let (fake, taken) = server(1, |_, _| Answer::new(429, "").header("Retry-After", "2"));
    outlives(&fake, &taken, "");
    let requests = fake.requests();
    let pause = requests[1].at.duration_since(requests[0].at);
    assert!(pause >= Duration::from_secs(2), "asked again after {pause:?}");

    let taken = Taken::default();
    let theirs = taken.clone();
    let fake = Fake::start(move |request, _| {
        if request.ids().len() > 3 {
            return Answer::new(413, "<html>Request Entity Too Large</html>");
        }
        take(request, &theirs, |_| None)
    });
    outlives(&fake, &taken, "compress = false");
    assert!(taken.lock().unwrap().values().all(|times| *times == 1));
}

#[test]
fn refused_credentials_are_logged_retried_slowly_and_reread_on_sighup() {
    if !root("shipping") {
        return;
    }
    let taken = Taken::default();
    let theirs = taken.clone();
    let fake = Fake::start(move |request, _| {
        if request.header("authorization") == Some("Basic b25zZXQ6bmV3") {
            return take(request, &theirs, |_| None);
        }
        Answer::new(
            401,
            "{\"error\":{\"type\":\"security_exception\",\"reason\":\"unable to authenticate\"},\"status\":401}",
        )
    });
    let folder = crate::rig::Folder::new();
    let password = folder.file("password", "old-secret\n");
    let more = format!("username = \"onset\"\npassword_file = \"{}\"", password.display());
    let agent = Agent::start(&config(&fake.url(), &more));
    assert_eq!(events(&agent, 5), 5);
    fake.wait("a refusal", SOON, |requests| !requests.is_empty());
    let line = agent
        .said
        .wait("words on the credentials", SOON, |line| line.contains("HTTP 401").then(|| line.to_owned()));
    assert!(line.contains("password_file") && line.contains("unable to authenticate"), "{line}");
    // Nobody asks again within the second: only a person can help.
    assert_eq!(fake.requests().len(), 1);
    let status = String::from_utf8(run(&mut agent.onset(&["status"])).stdout).unwrap();
    assert!(status.contains("refused") && status.contains("5 to go"), "{status}");
    let shown = [
        status,
        run(&mut agent.onset(&["status", "--json"])).stdout.escape_ascii().to_string(),
        agent.get("/metrics").1,
    ];
    let arguments = std::fs::read(format!("/proc/{}/cmdline", agent.pid())).unwrap();
    for text in shown.iter().map(String::as_bytes).chain([&arguments[..], line.as_bytes()]) {
        let has = |secret: &[u8]| text.windows(secret.len()).any(|part| part == secret);
        assert!(!has(b"old-secret") && !has(b"b25zZXQ6"), "a secret is shown");
    }
    std::fs::write(&password, "new").unwrap();
    let began = Instant::now();
    agent.signal(libc::SIGHUP);
    shipped(&agent, SOON);
    assert!(began.elapsed() < Duration::from_secs(25), "not at the slow pace");
    assert_eq!(taken.lock().unwrap().len(), 5);
    is_well(&agent);
    // Turned off and on again by the config.
    let text = std::fs::read_to_string(&agent.config).unwrap();
    std::fs::write(&agent.config, text.replace(&fake.url(), "")).unwrap();
    agent.signal(libc::SIGHUP);
    let state = |wanted: &str| {
        await_that("another state of shipping", SOON, || {
            let json: serde_json::Value =
                serde_json::from_slice(&run(&mut agent.onset(&["status", "--json"])).stdout).ok()?;
            (json["ship"]["state"] == *wanted).then_some(())
        });
    };
    state("off");
    assert_eq!(events(&agent, 3), 3);
    std::fs::write(&agent.config, text).unwrap();
    agent.signal(libc::SIGHUP);
    await_that("what came meanwhile", SOON, || (taken.lock().unwrap().len() == 8).then_some(()));
    state("shipping");
    assert_eq!(agent.leave(), Some(0));
}

#[test]
fn a_terminated_agent_ships_the_rest_once_and_waits_for_no_dead_server() {
    if !root("shipping") {
        return;
    }
    let (fake, taken) = server(0, |_, _| Answer::never());
    let agent = Agent::start(&config(&fake.url(), "flush = \"1h\"").replace("flush = \"50ms\"\n", ""));
    assert_eq!(events(&agent, 5), 5);
    assert_eq!(fake.requests().len(), 0, "it gathers");
    assert_eq!(agent.leave(), Some(0));
    assert_eq!(taken.lock().unwrap().len(), 5, "sent before it left");

    let (fake, _) = server(usize::MAX, |_, _| Answer::never());
    let agent = Agent::start(&config(&fake.url(), "timeout = \"60s\""));
    assert_eq!(events(&agent, 5), 5);
    fake.wait("a request that hangs", SOON, |requests| !requests.is_empty());
    let began = Instant::now();
    let log = agent.log();
    let folder = std::fs::read_dir(&log).unwrap().count();
    assert!(folder > 0);
    assert_eq!(agent.leave(), Some(0));
    // The contract says two seconds; a machine under load gets some more.
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
}

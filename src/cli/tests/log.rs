//! The commands that read the log: events, show, flame and verify.

use super::*;
use crate::log::RecordId;

fn flame() -> Value {
    json!([
        {"level": 0, "value": 100, "self": 0, "label": "all"},
        {"level": 1, "value": 100, "self": 10, "label": "java"},
        {"level": 2, "value": 90, "self": 90, "label": "spin\u{1b}[2J_[k]"},
    ])
}

#[test]
fn events_lists_one_line_each_filtered_by_tracer_container_and_time() {
    let mut fixture = Fixture::new();
    let hour = Duration::from_secs(3600);
    let old = fixture.event(hour * 3, "cpuidle", Some(CONTAINER), json!({"trigger": "surge"}));
    let stuck = json!({"trigger": "stuck", "known_issue": "nfs\u{1b}[2J gone", "nr_running": 3});
    let new = fixture.event(hour / 2, "dload", None, stuck);
    let broken = fixture.write(b"{\"no document");
    let lines = |args: &[&str]| -> Vec<String> { fixture.prints(args).lines().map(str::to_owned).collect() };
    let all = lines(&["events"]);
    assert_eq!(all.len(), 3);
    assert!(all[0].contains(&old.to_string()) && all[0].contains("  4f2a91c07be3  "), "{}", all[0]);
    assert!(all[1].contains(&new.to_string()) && all[1].contains("  host "), "{}", all[1]);
    assert!(all[1].ends_with("\"nfs?[2J gone\", nr_running 3"), "{}", all[1]);
    assert!(all[2].contains(&broken.to_string()) && all[2].contains("no document"), "{}", all[2]);
    assert_eq!(lines(&["events", "--tracer", "cpuidle"]), all[..1]);
    assert_eq!(lines(&["events", "--container", "4f2a"]), all[..1]);
    assert_eq!(lines(&["events", "--container", CONTAINER]), all[..1]);
    assert_eq!(lines(&["events", "--container", "4f2a", "--tracer", "dload"]), [""; 0], "known, but in none");
    assert_eq!(lines(&["events", "--since", "1h"]), all[1..2]);
    assert_eq!(lines(&["events", "--since=4h", "--tracer=cpuidle", "--container=4f"]), all[..1]);
}

#[test]
fn events_can_be_sorted_by_log_order_or_trigger_time() {
    let mut fixture = Fixture::new();
    // A capture of a minute is kept after one that fired later and took a second.
    let minutes = [9, 3, 7, 7, 1, 8];
    let ids: Vec<String> = minutes
        .map(|ago| fixture.event(Duration::from_secs(60 * ago), "cpuidle", None, json!({"trigger": "surge"})))
        .map(|id| id.to_string())
        .to_vec();
    let none = fixture.write(b"{\"no document").to_string();
    let listed = |args: &[&str]| -> Vec<String> {
        let text = fixture.prints(args);
        let id = |line: &str| ids.iter().chain([&none]).find(|id| line.contains(*id)).cloned();
        text.lines().filter_map(id).collect()
    };
    let all: Vec<String> = ids.iter().chain([&none]).cloned().collect();
    assert_eq!(listed(&["events"]), all);
    assert_eq!(listed(&["events", "--sort", "log"]), all);
    let by_time = [0, 5, 2, 3, 1, 4].map(|place: usize| ids[place].clone());
    // What has no time of its own comes where it was kept: behind the one before it.
    assert_eq!(listed(&["events", "--sort=time", "--tracer=cpuidle"]), by_time);
    let whole = [0, 5, 6, 2, 3, 1, 4].map(|place: usize| all[place].clone());
    assert_eq!(listed(&["events", "--sort=time"]), whole);
    assert_eq!(listed(&["events", "--sort=time", "--since", "5m"]), by_time[4..]);
    let json = fixture.prints(&["events", "--sort=time", "--json", "--tracer=cpuidle"]);
    let times: Vec<Value> = json
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["tracer_time"].clone())
        .collect();
    assert!(times.len() == 6 && times.is_sorted_by_key(|time| time.as_str().map(str::to_owned)), "{times:?}");
    let (code, _, err) = fixture.onset(&["events", "--sort", "time", "--follow"]);
    assert!(code == 2 && err.contains("without --follow"), "{err}");
    let (code, _, err) = fixture.onset(&["events", "--sort", "size"]);
    assert!(code == 2 && err.contains("--sort: not size"), "{err}");
}

#[test]
fn events_filters_by_the_container_that_an_event_blames() {
    let mut fixture = Fixture::new();
    let (noisy, victim) = ("a".repeat(64), "b".repeat(64));
    let io = json!({"process_file_io_stats": [{"pid": 1}, {"pid": 7, "container_id": noisy}]});
    let io = fixture.event(Duration::ZERO, "iotracing", None, io).to_string();
    let waits = json!({"interferer_list": [{"container_id": noisy, "wait_ms": 5}]});
    let waits = fixture.event(Duration::ZERO, "waitrate", Some(&victim), waits).to_string();
    let kill = json!({"victim": {"container_id": victim}, "killer": {"comm": noisy}});
    let kill = fixture.event(Duration::ZERO, "oom", Some(CONTAINER), kill).to_string();
    let found = |container: &str| -> Vec<bool> {
        let text = fixture.prints(&["events", "--container", container]);
        [&io, &waits, &kill].map(|id| text.contains(id.as_str())).to_vec()
    };
    assert_eq!(found(&noisy), [true, true, false]);
    assert_eq!(found("aaaa"), [true, true, false]);
    assert_eq!(found(&victim), [false, true, true]);
    assert_eq!(found(CONTAINER), [false, false, true]);
}

#[test]
fn a_filter_that_no_event_can_match_is_an_error() {
    let mut fixture = Fixture::new();
    fixture.event(Duration::ZERO, "later", None, json!({}));
    for args in [
        &["events", "--tracer", "cpuidel"][..],
        &["events", "--tracer=cpuidel", "--sort=time"],
        &["events", "--tracer=cpuidel", "--rejected"],
    ] {
        let (code, out, err) = fixture.onset(args);
        assert_eq!((code, out.as_str(), err.lines().count()), (2, "", 1));
        assert!(err.contains("there is no tracer cpuidel; there are cpuidle, cpusys, "), "{err}");
    }
    // Of another version's tracer there are events.
    assert!(fixture.prints(&["events", "--tracer", "later"]).contains("  later "));
    assert_eq!(fixture.prints(&["events", "--tracer", "later", "--rejected"]), "");
    let (code, out, err) = fixture.onset(&["events", "--container", "f00dfacef00d"]);
    assert_eq!((code, out.as_str()), (0, ""));
    assert!(err.starts_with("onset: no event in the log names a container f00dfacef00d, "), "{err}");
}

#[test]
fn a_container_without_events_is_no_error() {
    let fixture = Fixture::new();
    let id = "7".repeat(64);
    for path in ["cgroup.controllers".to_owned(), format!("kubepods/burstable/pod12ab/{id}/cpu.stat")] {
        let path = fixture.path("cgroup").join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(path, b"cpu memory\n").expect("a file");
    }
    let config = fs::read_to_string(fixture.path("onset.toml")).expect("a config");
    let paths = format!("{config}[paths]\ncgroup = {:?}\n", fixture.path("cgroup"));
    fs::write(fixture.path("onset.toml"), paths).expect("a file");
    assert_eq!(fixture.prints(&["events", "--container", &id[..20]]), "");
    let (code, _, err) = fixture.onset(&["events", "--container", "70"]);
    assert!(code == 0 && err.contains("there is none here"), "{err}");
}

#[test]
fn events_json_prints_the_stored_documents_unchanged() {
    let mut fixture = Fixture::new();
    fixture.write(b"{\"tracer_name\":\"x\" , \"b\":1e1}");
    fixture.write(b"{\"tracer_name\":\"y\"}\n");
    let stored = "{\"tracer_name\":\"x\" , \"b\":1e1}\n{\"tracer_name\":\"y\"}\n";
    assert_eq!(fixture.prints(&["events", "--json"]), stored);
    assert_eq!(fixture.prints(&["events", "--json", "--tracer", "x"]), &stored[..30]);
    assert_eq!(fixture.prints(&["events", "--json", "--tracer", "dload"]), "", "it may tell of one yet");
}

#[test]
fn reading_commands_with_dir_need_no_config() {
    let mut fixture = Fixture::new();
    fixture.write(b"{}");
    let dir = fixture.path("log").to_string_lossy().into_owned();
    assert_eq!(onset(&["events", "--json", "--dir", &dir, "--config", "/no/such"]).1, "{}\n");
    let (code, _, err) = onset(&["events", "--dir", "/no/such"]);
    assert_eq!((code, err.lines().count()), (1, 1));
    assert!(err.contains("/no/such"), "{err}");
}

#[test]
fn events_follow_prints_new_events_and_ends_with_its_reader() {
    let mut fixture = Fixture::new();
    fixture.event(Duration::ZERO, "first", None, json!({}));
    let (ours, theirs) = UnixStream::pair().expect("sockets");
    let config = fixture.path("onset.toml").into_os_string();
    let following = thread::spawn(move || {
        let args = ["onset", "events", "--follow", "--config"].map(OsString::from);
        let mut out = io::BufWriter::new(theirs);
        perform(args.into_iter().chain([config]), &mut out, &mut io::sink())
    });
    ours.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
    let mut lines = BufReader::new(&ours).lines();
    let mut line = || lines.next().expect("no end").expect("in time");
    assert!(line().contains("  first "));
    fixture.event(Duration::ZERO, "second", None, json!({}));
    assert!(line().contains("  second "));
    drop(lines);
    drop(ours);
    fixture.event(Duration::ZERO, "third", None, json!({}));
    assert_eq!(following.join().expect("no panic"), 0);
}

#[test]
fn show_prints_every_field_of_an_event() {
    let mut fixture = Fixture::new();
    let data = json!({
        "trigger": "stuck", "duration_ms": 12, "nr_uninterruptible": 7, "stack": "one\ntwo\n",
        "top_processes": [{"pid": 7, "comm": "ja\u{7}va", "samples": 90}, {"pid": 12345, "comm": "b", "samples": 1}],
        "tasks": [{"pid": 3, "tid": 4, "comm": "cp", "state": "D", "blocked_ms": 61_000,
                   "stack": ["rpc_wait", "nfs_read"]}],
        "reason_snapshot": {"device": "sda", "iostatus": {"read_bps": 2_097_152}},
        "flamedata": flame(), "odd": [1, "x", null], "nothing": [],
    });
    let id = fixture.event(Duration::ZERO, "dload", Some(CONTAINER), data);
    let text = fixture.prints(&["show", &id.to_string()]);
    for part in [
        "dload: stuck at 2",
        &format!("container_id              {CONTAINER}\n"),
        "duration_ms                     12.0 ms\n",
        "nr_uninterruptible              7\n",
        "\nstack\n  one\n  two\n",
        "top_processes (2)\n  pid    comm   samples\n  7      ja?va  90\n  12345  b      1\n",
        "tasks (1)\n  pid 3, tid 4, comm cp, state D, blocked_ms 61.0 s\n    rpc_wait\n    nfs_read\n",
        "reason_snapshot\n  device                          sda\n\n  iostatus\n    read_bps                        2.0 MiB/s\n",
        "odd (3)\n  1\n  x\n  null\n",
        " 100.0 %  all > java > spin?[2J_[k]\n",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    assert!(!text.contains(|c: char| c.is_control() && c != '\n') && !text.contains("nothing"));
}

#[test]
fn show_truncates_a_long_list_and_says_so() {
    let mut fixture = Fixture::new();
    let rows: Vec<Value> = (0..33).map(|pid| json!({"pid": pid})).collect();
    let id = fixture.event(Duration::ZERO, "x", None, json!({ "rows": rows }));
    let text = fixture.prints(&["show", &id.to_string()]);
    assert!(
        text.contains("rows (33)\n") && text.ends_with("  19\n  ... and 13 more in the document\n"),
        "{text}"
    );
}

#[test]
fn an_event_is_found_by_an_unambiguous_part_of_its_id() {
    let mut fixture = Fixture::new();
    let ids: Vec<RecordId> = (0..20).map(|_| fixture.event(Duration::ZERO, "x", None, json!({}))).collect();
    let name = ids[6].to_string();
    let end = &name[name.len() - 4..];
    for id in [&name[..], &name.to_uppercase(), end, &name[1..]] {
        assert!(fixture.prints(&["show", id]).contains(&name), "{id}");
    }
    let begin = &name[..16];
    assert!(fixture.fails(&["show", begin]).contains("20 events have"), "all of a log begin alike");
    assert!(fixture.fails(&["show", "ffff"]).contains("there is no event ffff"));
    assert!(fixture.fails(&["show", &"f".repeat(32)]).contains("there is no event"));
    assert!(fixture.fails(&["show", "latest"]).contains("32 hex digits"));
    let broken = fixture.write(b"x").to_string();
    assert!(fixture.fails(&["show", &broken]).contains("is no document"));
    assert!(fixture.fails(&["flame", &broken]).contains("is no document"));
}

#[test]
fn flame_draws_stacks_in_three_formats_or_says_there_are_none() {
    let mut fixture = Fixture::new();
    let id = fixture.event(Duration::ZERO, "cpuidle", None, json!({"flamedata": flame()})).to_string();
    assert!(fixture.prints(&["flame", &id]).contains("<svg"));
    assert_eq!(fixture.prints(&["flame", &id, "--format=folded"]), "java 10\njava;spin?[2J_[k] 90\n");
    let file = fixture.path("x.json");
    let path = file.to_string_lossy().into_owned();
    assert_eq!(fixture.prints(&["flame", &id, "--format", "speedscope", "-o", &path]), "");
    let drawn: Value = serde_json::from_slice(&fs::read(file).expect("the file")).expect("JSON");
    assert_eq!(drawn["profiles"][0]["endValue"], 100);
    assert!(fixture.fails(&["flame", &id, "-o", "/no/such/file"]).contains("cannot write /no/such/file"));
    for data in [json!({}), json!({"flamedata": []}), json!({"flamedata": "x"}), json!(5)] {
        let id = fixture.event(Duration::ZERO, "dload", None, data).to_string();
        assert!(fixture.fails(&["flame", &id]).contains("has no stacks"));
    }
    let orphan = json!({"flamedata": [{"level": 3, "value": 1, "self": 1, "label": "x"}]});
    let id = fixture.event(Duration::ZERO, "x", None, orphan).to_string();
    assert!(fixture.fails(&["flame", &id]).contains("no parent"));
    assert!(!fixture.prints(&["show", &id]).contains("hottest"), "and yet it is shown");
}

#[test]
fn verify_fails_once_a_record_is_corrupt() {
    let mut fixture = Fixture::new();
    fixture.write(b"{\"rot\":\"HERE\"}");
    fixture.write(b"{}");
    let text = fixture.prints(&["verify"]);
    assert!(text.contains("records      2\n") && text.contains("bad records  0\n"), "{text}");
    fixture.writer = None;
    let rotted = fs::read_dir(fixture.path("log")).expect("the log").flatten().any(|entry| {
        let mut bytes = fs::read(entry.path()).expect("a file");
        let at = bytes.windows(4).position(|four| four == b"HERE");
        at.map(|at| bytes[at] ^= 1).is_some_and(|()| fs::write(entry.path(), bytes).is_ok())
    });
    assert!(rotted);
    let (code, out, err) = fixture.onset(&["verify"]);
    assert_eq!((code, err.as_str(), out.contains("bad records  1\n")), (1, "", true), "{out}");
}

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::control::{Ask, LastEvent, Outcome, Status, TracerStatus};
use crate::log::RecordId;
use desk::Desk;

mod desk;

const CONTAINER: &str = "4f2a91c07be34d18a6c5d2e0f1b3a4958677e6d5c4b3a2918070615243342516";

/// Runs a command: its exit code and what it said to whom.
fn onset(args: &[&str]) -> (u8, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let args = ["onset"].iter().chain(args).map(OsString::from);
    let code = perform(args, &mut out, &mut err);
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (code, text(out), text(err))
}

fn flame() -> Value {
    json!([
        {"level": 0, "value": 100, "self": 0, "label": "all"},
        {"level": 1, "value": 100, "self": 10, "label": "java"},
        {"level": 2, "value": 90, "self": 90, "label": "spin\u{1b}[2J_[k]"},
    ])
}

#[test]
fn a_misuse_ends_with_2_and_one_line_that_says_what_is_wrong() {
    let desk = Desk::new();
    for (args, says) in [
        (&[][..], "a command is missing"),
        (&["fly"], "no command fly"),
        (&["--fly"], "--fly"),
        (&["-x"], "-x"),
        (&["events", "--fly"], "--fly"),
        (&["events", "operand"], "operand"),
        (&["events", "--since"], "--since"),
        (&["events", "--since", "yesterday"], "--since: not yesterday"),
        (&["events", "--json=5"], "--json"),
        (&["show"], "ID is missing"),
        (&["flame", "1", "2"], "2"),
        (&["flame", "1", "--format", "png"], "--format: not png"),
        (&["trigger"], "TRACER is missing"),
        (&["trigger", "dload", "--seconds", "-1"], "--seconds: not -1"),
        (&["es-template", "--flavor", "solr"], "--flavor: not solr"),
        (&["es-template", "--retention", "1s"], "--retention: not 1s"),
        (&["es-template", "--retention", "1d", "--plain"], "leave out --plain"),
        (&["es-template", "--json", "--apply"], "--json prints"),
        (&["fly\n\u{1b}[2J"], "fly??[2J"),
    ] {
        let (code, out, err) = onset(args);
        assert_eq!((code, out.as_str(), err.lines().count()), (2, "", 1), "{args:?}: {err}");
        assert!(err.starts_with("onset: ") && err.contains(says), "{args:?}: {err}");
    }
    drop(desk);
}

#[test]
fn every_command_has_help_and_the_program_a_version() {
    for args in [["--version"], ["-V"]] {
        assert_eq!(onset(&args), (0, format!("onset {}\n", env!("CARGO_PKG_VERSION")), String::new()));
    }
    let (code, overview, _) = onset(&["--help"]);
    assert_eq!((code, onset(&["-h"]).1 == overview), (0, true));
    for command in COMMANDS {
        assert!(overview.contains(command.name), "{}", command.name);
        let (code, help, err) = onset(&[command.name, "--help"]);
        assert_eq!((code, err.as_str()), (0, ""), "{}", command.name);
        assert!(help.contains(&format!("Usage: onset {}", command.name)) && help.contains("--config FILE"));
        for option in command.options {
            assert!(help.contains(&format!("--{}", option.long)), "{}", option.long);
        }
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let (ours, theirs) = UnixStream::pair().expect("sockets");
    drop(theirs);
    let mut err = Vec::new();
    let code = perform(["onset", "config"].map(OsString::from), &mut &ours, &mut err);
    assert_eq!((code, err), (0, vec![]));
}

#[test]
fn a_full_disk_is_a_failure() {
    let mut full = fs::File::options().write(true).open("/dev/full").expect("Linux");
    let mut err = Vec::new();
    let code = perform(["onset", "config"].map(OsString::from), &mut full, &mut err);
    assert_eq!(code, 1);
    assert!(String::from_utf8(err).expect("text").starts_with("onset: cannot write: "));
}

#[test]
fn check_takes_what_config_prints_and_names_each_wrong_key() {
    let desk = Desk::new();
    assert!(desk.prints(&["check"]).contains("can be used"));
    let file = desk.path("printed.toml");
    fs::write(&file, desk.prints(&["config"])).expect("a file");
    let file = format!("--config={}", file.display());
    assert_eq!(onset(&["check", &file]).0, 0);
    fs::write(desk.path("onset.toml"), "hostnam = \"x\"\n[log]\nsync = 5\n").expect("a file");
    let (code, out, err) = desk.onset(&["check"]);
    assert_eq!((code, out.as_str(), err.lines().count()), (2, "", 2));
    assert!(err.lines().any(|line| line.starts_with("log.sync: ")), "{err}");
    assert!(err.lines().any(|line| line.starts_with("hostnam: ")), "{err}");
    let (code, _, err) = onset(&["check", "--config", "/no/such/file"]);
    assert_eq!(code, 2);
    assert!(err.starts_with("/no/such/file: "), "{err}");
}

#[test]
fn events_are_listed_a_line_each_and_chosen_by_tracer_container_and_time() {
    let mut desk = Desk::new();
    let hour = Duration::from_secs(3600);
    let old = desk.event(hour * 3, "cpuidle", Some(CONTAINER), json!({"trigger": "surge"}));
    let stuck = json!({"trigger": "stuck", "known_issue": "nfs\u{1b}[2J gone", "nr_running": 3});
    let new = desk.event(hour / 2, "dload", None, stuck);
    let broken = desk.write(b"{\"no document");
    let lines = |args: &[&str]| -> Vec<String> { desk.prints(args).lines().map(str::to_owned).collect() };
    let all = lines(&["events"]);
    assert_eq!(all.len(), 3);
    assert!(all[0].contains(&old.to_string()) && all[0].contains("  4f2a91c07be3  "), "{}", all[0]);
    assert!(all[1].contains(&new.to_string()) && all[1].contains("  host "), "{}", all[1]);
    assert!(all[1].ends_with("\"nfs?[2J gone\", nr_running 3"), "{}", all[1]);
    assert!(all[2].contains(&broken.to_string()) && all[2].contains("no document"), "{}", all[2]);
    assert_eq!(lines(&["events", "--tracer", "cpuidle"]), all[..1]);
    assert_eq!(lines(&["events", "--container", "4f2a"]), all[..1]);
    assert_eq!(lines(&["events", "--container", CONTAINER]), all[..1]);
    assert_eq!(lines(&["events", "--container", "f2a"]), [""; 0]);
    assert_eq!(lines(&["events", "--since", "1h"]), all[1..2]);
    assert_eq!(lines(&["events", "--since=4h", "--tracer=cpuidle", "--container=4f"]), all[..1]);
}

#[test]
fn json_is_a_document_a_line_exactly_as_stored() {
    let mut desk = Desk::new();
    desk.write(b"{\"tracer_name\":\"x\" , \"b\":1e1}");
    desk.write(b"{\"tracer_name\":\"y\"}\n");
    let stored = "{\"tracer_name\":\"x\" , \"b\":1e1}\n{\"tracer_name\":\"y\"}\n";
    assert_eq!(desk.prints(&["events", "--json"]), stored);
    assert_eq!(desk.prints(&["events", "--json", "--tracer", "z"]), "");
}

#[test]
fn another_folder_needs_no_config() {
    let mut desk = Desk::new();
    desk.write(b"{}");
    let dir = desk.path("log").to_string_lossy().into_owned();
    assert_eq!(onset(&["events", "--json", "--dir", &dir, "--config", "/no/such"]).1, "{}\n");
    let (code, _, err) = onset(&["events", "--dir", "/no/such"]);
    assert_eq!((code, err.lines().count()), (1, 1));
    assert!(err.contains("/no/such"), "{err}");
}

#[test]
fn who_follows_sees_each_event_as_it_is_kept_and_may_leave_at_any_time() {
    let mut desk = Desk::new();
    desk.event(Duration::ZERO, "first", None, json!({}));
    let (ours, theirs) = UnixStream::pair().expect("sockets");
    let config = desk.path("onset.toml").into_os_string();
    let following = thread::spawn(move || {
        let args = ["onset", "events", "--follow", "--config"].map(OsString::from);
        let mut out = io::BufWriter::new(theirs);
        perform(args.into_iter().chain([config]), &mut out, &mut io::sink())
    });
    ours.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
    let mut lines = BufReader::new(&ours).lines();
    let mut line = || lines.next().expect("no end").expect("in time");
    assert!(line().contains("  first "));
    desk.event(Duration::ZERO, "second", None, json!({}));
    assert!(line().contains("  second "));
    drop(lines);
    drop(ours);
    desk.event(Duration::ZERO, "third", None, json!({}));
    assert_eq!(following.join().expect("no panic"), 0);
}

#[test]
fn an_event_is_shown_with_all_that_it_knows() {
    let mut desk = Desk::new();
    let data = json!({
        "trigger": "stuck", "duration_ms": 12, "nr_uninterruptible": 7, "stack": "one\ntwo\n",
        "top_processes": [{"pid": 7, "comm": "ja\u{7}va", "samples": 90}, {"pid": 12345, "comm": "b", "samples": 1}],
        "tasks": [{"pid": 3, "tid": 4, "comm": "cp", "state": "D", "blocked_ms": 61_000,
                   "stack": ["rpc_wait", "nfs_read"]}],
        "reason_snapshot": {"device": "sda", "iostatus": {"read_bps": 2_097_152}},
        "flamedata": flame(), "odd": [1, "x", null], "nothing": [],
    });
    let id = desk.event(Duration::ZERO, "dload", Some(CONTAINER), data);
    let text = desk.prints(&["show", &id.to_string()]);
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
fn a_long_list_is_cut_and_says_so() {
    let mut desk = Desk::new();
    let rows: Vec<Value> = (0..33).map(|pid| json!({"pid": pid})).collect();
    let id = desk.event(Duration::ZERO, "x", None, json!({ "rows": rows }));
    let text = desk.prints(&["show", &id.to_string()]);
    assert!(
        text.contains("rows (33)\n") && text.ends_with("  19\n  ... and 13 more in the document\n"),
        "{text}"
    );
}

#[test]
fn an_event_is_found_by_the_end_or_beginning_of_its_id_if_only_one_fits() {
    let mut desk = Desk::new();
    let ids: Vec<RecordId> = (0..20).map(|_| desk.event(Duration::ZERO, "x", None, json!({}))).collect();
    let name = ids[6].to_string();
    let end = &name[name.len() - 4..];
    for id in [&name[..], &name.to_uppercase(), end, &name[1..]] {
        assert!(desk.prints(&["show", id]).contains(&name), "{id}");
    }
    let begin = &name[..16];
    assert!(desk.fails(&["show", begin]).contains("20 events have"), "all of a log begin alike");
    assert!(desk.fails(&["show", "ffff"]).contains("there is no event ffff"));
    assert!(desk.fails(&["show", &"f".repeat(32)]).contains("there is no event"));
    assert!(desk.fails(&["show", "latest"]).contains("32 hex digits"));
    let broken = desk.write(b"x").to_string();
    assert!(desk.fails(&["show", &broken]).contains("is no document"));
    assert!(desk.fails(&["flame", &broken]).contains("is no document"));
}

#[test]
fn an_event_s_stacks_are_drawn_in_three_formats_or_it_has_none() {
    let mut desk = Desk::new();
    let id = desk.event(Duration::ZERO, "cpuidle", None, json!({"flamedata": flame()})).to_string();
    assert!(desk.prints(&["flame", &id]).contains("<svg"));
    assert_eq!(desk.prints(&["flame", &id, "--format=folded"]), "java 10\njava;spin?[2J_[k] 90\n");
    let file = desk.path("x.json");
    let path = file.to_string_lossy().into_owned();
    assert_eq!(desk.prints(&["flame", &id, "--format", "speedscope", "-o", &path]), "");
    let drawn: Value = serde_json::from_slice(&fs::read(file).expect("the file")).expect("JSON");
    assert_eq!(drawn["profiles"][0]["endValue"], 100);
    assert!(desk.fails(&["flame", &id, "-o", "/no/such/file"]).contains("cannot write /no/such/file"));
    for data in [json!({}), json!({"flamedata": []}), json!({"flamedata": "x"}), json!(5)] {
        let id = desk.event(Duration::ZERO, "dload", None, data).to_string();
        assert!(desk.fails(&["flame", &id]).contains("has no stacks"));
    }
    let orphan = json!({"flamedata": [{"level": 3, "value": 1, "self": 1, "label": "x"}]});
    let id = desk.event(Duration::ZERO, "x", None, orphan).to_string();
    assert!(desk.fails(&["flame", &id]).contains("no parent"));
    assert!(!desk.prints(&["show", &id]).contains("hottest"), "and yet it is shown");
}

#[test]
fn a_log_is_sound_until_a_record_rots() {
    let mut desk = Desk::new();
    desk.write(b"{\"rot\":\"HERE\"}");
    desk.write(b"{}");
    let text = desk.prints(&["verify"]);
    assert!(text.contains("records      2\n") && text.contains("bad records  0\n"), "{text}");
    desk.writer = None;
    let rotted = fs::read_dir(desk.path("log")).expect("the log").flatten().any(|entry| {
        let mut bytes = fs::read(entry.path()).expect("a file");
        let at = bytes.windows(4).position(|four| four == b"HERE");
        at.map(|at| bytes[at] ^= 1).is_some_and(|()| fs::write(entry.path(), bytes).is_ok())
    });
    assert!(rotted);
    let (code, out, err) = desk.onset(&["verify"]);
    assert_eq!((code, err.as_str(), out.contains("bad records  1\n")), (1, "", true), "{out}");
}

#[test]
fn the_agent_s_state_is_shown_as_a_table_or_as_it_came() {
    let status = Status {
        version: "9.9".into(),
        pid: 42,
        uptime_ms: 90_000,
        tracers: vec![
            TracerStatus {
                name: "dload".into(),
                state: "active".into(),
                events: 3,
                captures: [("done".to_owned(), 4), ("failed".to_owned(), 1)].into(),
                last_event: Some(LastEvent { id: "abc".into(), time: "noon".into(), container_id: None }),
                ..TracerStatus::default()
            },
            TracerStatus {
                name: "cpuidle".into(),
                state: "unsupported".into(),
                reason: Some("no BTF\u{1b}".into()),
                ..TracerStatus::default()
            },
        ],
        ..Status::default()
    };
    let reply = serde_json::to_value(&status).expect("JSON");
    let desk = Desk::new();
    let answer = |reply: Value| {
        move |ask| {
            assert_eq!(ask, Ask::Status {});
            reply
        }
    };
    let agent = desk.agent(answer(reply.clone()));
    let text = desk.prints(&["status"]);
    agent.join().expect("no panic");
    assert!(text.starts_with("onset 9.9, pid 42, up 90.0 s\n"), "{text}");
    for row in [
        "tracer   state        events  captures  refused  faults  last event\n",
        "dload    active       3       5         0        0       noon host abc\n",
        "cpuidle  unsupported  0       0         0        0       none\n",
        "cpuidle: no BTF?\n",
    ] {
        assert!(text.contains(row), "{row:?} is not in\n{text}");
    }
    let agent = desk.agent(answer(reply));
    let json: Status = serde_json::from_str(&desk.prints(&["status", "--json"])).expect("JSON");
    agent.join().expect("no panic");
    assert_eq!(json, status);
    assert!(desk.fails(&["status"]).contains("no onset answers on "), "it went");
}

#[test]
fn a_trigger_prints_the_event_s_id_or_why_there_is_none() {
    let desk = Desk::new();
    let agent = desk.agent(|ask| {
        let (tracer, container) = ("dload".into(), Some("abc".into()));
        assert_eq!(ask, Ask::Trigger { tracer, container, seconds: Some(5) });
        json!(Outcome::Id("0123".into()))
    });
    assert_eq!(desk.prints(&["trigger", "dload", "--container", "abc", "--seconds", "5"]), "0123\n");
    agent.join().expect("no panic");
    let agent = desk.agent(|_| json!(Outcome::Refused("busy\n\u{1b}".into())));
    assert_eq!(desk.fails(&["trigger", "dload"]), "onset: refused: busy??\n");
    agent.join().expect("no panic");
}

#[test]
fn containers_are_listed_with_their_names_without_an_agent() {
    let desk = Desk::new();
    let id = "7".repeat(64);
    let write = |path: String, bytes: &[u8]| {
        let path = desk.path(&path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(path, bytes).expect("a file");
    };
    write("cgroup/cgroup.controllers".into(), b"cpu memory\n");
    write(format!("cgroup/kubepods/burstable/pod12ab/{id}/cpu.stat"), b"");
    write("cgroup/default/redis/cpu.stat".into(), b"");
    write(
        format!("run/containerd/io.containerd.runtime.v2.task/k8s.io/{id}/config.json"),
        include_bytes!("../../fuzz/corpus/oci_spec/containerd-pod"),
    );
    let at = desk.path("");
    let paths = format!("[paths]\ncgroup = \"{0}/cgroup\"\nroot = \"{0}\"\n", at.display());
    write("onset.toml".into(), paths.as_bytes());
    let rows: Vec<Value> = desk
        .prints(&["containers", "--json"])
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(rows.len(), 2);
    let redis = rows.iter().find(|row| row["container_id"] == "redis").expect("both are there");
    assert_eq!((&redis["container_name"], &redis["container_type"]), (&"".into(), &Value::Null));
    let web = rows.iter().find(|row| row["container_id"] == *id).expect("both are there");
    for (field, value) in [
        ("container_name", "web"),
        ("pod", "shop-7d4b9c6f5-x2v9k"),
        ("pod_uid", "9f1f8a52-8e51-4f0a-9c1f-0d6f5f1d2a3b"),
        ("container_host_namespace", "shop"),
        ("container_hostname", "shop-7d4b9c6f5-x2v9k"),
        ("container_qos", "burstable"),
    ] {
        assert_eq!(web[field], value, "{field}");
    }
    let table = desk.prints(&["containers"]);
    assert_eq!(table.lines().count(), 3, "{table}");
    let line = table.lines().find(|line| line.starts_with("777")).expect("a line of its own");
    assert!(line.contains(" shop ") && line.contains(" web ") && line.contains(" burstable "), "{line}");

    write("onset.toml".into(), format!("{paths}[containers]\nkubelet = \"http://127.0.0.1:9\"\n").as_bytes());
    let (code, out, err) = desk.onset(&["containers"]);
    assert_eq!((code, out.lines().count()), (1, 3), "the list stands");
    assert!(err.starts_with("onset: no names from the kubelet: "), "{err}");
}

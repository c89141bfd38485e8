use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::control::{
    BudgetStatus, ControlRequest, LastEvent, OpenCaptureStatus, Outcome, ProgramStatus, Status, TracerStatus,
};
use fixture::Fixture;

mod fixture;
mod log;

const CONTAINER: &str = "4f2a91c07be34d18a6c5d2e0f1b3a4958677e6d5c4b3a2918070615243342516";

/// Runs a command: its exit code and what it said to whom.
fn onset(args: &[&str]) -> (u8, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let args = ["onset"].iter().chain(args).map(OsString::from);
    let code = perform(args, &mut out, &mut err);
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (code, text(out), text(err))
}

#[test]
fn a_usage_error_exits_with_2_and_one_line() {
    let fixture = Fixture::new();
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
        (&["trigger", "dlaod"], "there is no tracer dlaod; there are cpuidle, "),
        (&["trigger", "cpusys", "--container", "4f2a"], "cpusys is about the host"),
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
    drop(fixture);
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
fn a_closed_stdout_is_no_failure() {
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
    let fixture = Fixture::new();
    assert!(fixture.prints(&["check"]).contains("can be used"));
    let file = fixture.path("printed.toml");
    fs::write(&file, fixture.prints(&["config"])).expect("a file");
    let file = format!("--config={}", file.display());
    assert_eq!(onset(&["check", &file]).0, 0);
    fs::write(fixture.path("onset.toml"), "hostnam = \"x\"\n[log]\nsync = 5\n").expect("a file");
    let (code, out, err) = fixture.onset(&["check"]);
    assert_eq!((code, out.as_str(), err.lines().count()), (2, "", 2));
    assert!(err.lines().any(|line| line.starts_with("log.sync: ")), "{err}");
    assert!(err.lines().any(|line| line.starts_with("hostnam: ")), "{err}");
    let (code, _, err) = onset(&["check", "--config", "/no/such/file"]);
    assert_eq!(code, 2);
    assert!(err.starts_with("/no/such/file: "), "{err}");
}

fn sample_status() -> Status {
    Status {
        version: "9.9".into(),
        pid: 42,
        uptime_ms: 90_000,
        capture_budget: BudgetStatus {
            used_ms: 12_000,
            whole_ms: 60_000,
            window_ms: 600_000,
            free_at: Some("one".into()),
        },
        programs: vec![
            ProgramStatus { program: "stacks".into(), state: "attached".into(), reason: None },
            ProgramStatus {
                program: "rq_issued".into(),
                state: "refused".into(),
                reason: Some("no room\u{7}".into()),
            },
        ],
        tracers: vec![
            TracerStatus {
                name: "dload".into(),
                state: "active".into(),
                events: 3,
                captures: [("done".to_owned(), 4), ("failed".to_owned(), 1)].into(),
                last_event: Some(LastEvent { id: "abc".into(), time: "noon".into(), ..LastEvent::default() }),
                ..TracerStatus::default()
            },
            TracerStatus {
                name: "cpuidle".into(),
                state: "unsupported".into(),
                reason: Some("no BTF\u{1b}".into()),
                ..TracerStatus::default()
            },
        ],
        open_captures: vec![OpenCaptureStatus {
            kind: "tasks".into(),
            scope: "container".into(),
            container_id: Some("0123456789abcdef".into()),
            tracer: "dload".into(),
            trigger: Some("stuck\u{7}".into()),
            since: "noon".into(),
            until: "night".into(),
        }],
        ..Status::default()
    }
}

#[test]
fn status_prints_a_table_or_the_json_of_the_agent() {
    let status = sample_status();
    let reply = serde_json::to_value(&status).expect("JSON");
    let fixture = Fixture::new();
    let answer = |reply: Value| {
        move |ask| {
            assert_eq!(ask, ControlRequest::Status {});
            reply
        }
    };
    let agent = fixture.agent(answer(reply.clone()));
    let text = fixture.prints(&["status"]);
    agent.join().expect("no panic");
    assert!(text.starts_with("onset 9.9, pid 42, up 90.0 s\n"), "{text}");
    for row in [
        "tracer   state        events  captures  refused  faults  last event\n",
        "dload    active       3       5         0        0       noon host abc\n",
        "cpuidle  unsupported  0       0         0        0       none\n",
        "capture  of         container     for    trigger  since  until\n",
        "tasks    container  0123456789ab  dload  stuck?   noon   night\n",
        "cpuidle: no BTF?\n",
        "rq_issued: refused: no room?\n",
        "captures    12.0 s of 60.0 s that they may run in 10.0 min; one was refused, which has room again from one on\n",
    ] {
        assert!(text.contains(row), "{row:?} is not in\n{text}");
    }
    let agent = fixture.agent(answer(reply));
    let json: Status = serde_json::from_str(&fixture.prints(&["status", "--json"])).expect("JSON");
    agent.join().expect("no panic");
    assert_eq!(json, status);
    assert!(fixture.fails(&["status"]).contains("no onset answers on "), "it went");
}

#[test]
fn trigger_prints_the_event_id_or_why_it_was_refused() {
    let fixture = Fixture::new();
    let agent = fixture.agent(|ask| {
        let (tracer, container) = ("dload".into(), Some("abc".into()));
        assert_eq!(ask, ControlRequest::Trigger { tracer, container, seconds: Some(5) });
        json!(Outcome::Id("0123".into()))
    });
    assert_eq!(fixture.prints(&["trigger", "dload", "--container", "abc", "--seconds", "5"]), "0123\n");
    agent.join().expect("no panic");
    let agent = fixture.agent(|_| json!(Outcome::Refused("busy\n\u{1b}".into())));
    assert_eq!(fixture.fails(&["trigger", "dload"]), "onset: refused: busy??\n");
    agent.join().expect("no panic");
}

#[test]
fn containers_are_listed_with_their_names_without_an_agent() {
    let fixture = Fixture::new();
    let id = "7".repeat(64);
    let write = |path: String, bytes: &[u8]| {
        let path = fixture.path(&path);
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
    let sandbox = "2ea9209947dc6556d9dc4fa114275813de319abee3f3cd035c7f075a7389d585";
    write(
        format!("run/containerd/io.containerd.runtime.v2.task/k8s.io/{sandbox}/config.json"),
        include_bytes!("../../fuzz/corpus/oci_spec/containerd-sandbox"),
    );
    let at = fixture.path("");
    let paths = format!("[paths]\ncgroup = \"{0}/cgroup\"\nroot = \"{0}\"\n", at.display());
    write("onset.toml".into(), paths.as_bytes());
    let rows: Vec<Value> = fixture
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
    let table = fixture.prints(&["containers"]);
    assert_eq!(table.lines().count(), 3, "{table}");
    let line = table.lines().find(|line| line.starts_with("777")).expect("a line of its own");
    assert!(line.contains(" shop ") && line.contains(" web ") && line.contains(" burstable "), "{line}");

    write(format!("cgroup/user.slice/user@7.service/docker-{id}.scope/cpu.stat"), b"");
    let table = fixture.prints(&["containers"]);
    assert!(
        table.contains("\nleft out: 1; another cgroup is the container of that id: docs/containers.md"),
        "{table}"
    );
    fs::remove_dir_all(fixture.path("cgroup/user.slice")).expect("it goes");

    write("onset.toml".into(), format!("{paths}[containers]\nkubelet = \"http://127.0.0.1:9\"\n").as_bytes());
    let (code, out, err) = fixture.onset(&["containers"]);
    assert_eq!((code, out.lines().count()), (1, 3), "the list stands");
    assert!(err.starts_with("onset: no names from the kubelet: "), "{err}");
}

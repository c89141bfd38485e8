//! What goes wrong at night: each time a clear line with the remedy, the contract's exit code, and
//! no panic.

use std::process::Output;

use crate::rig::{Agent, Folder, ONSET, SOON, await_that, command, config, done, only, root, run};

/// It ended with this code, and said all of these words on stderr.
fn refused(output: &Output, code: i32, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    for word in words {
        assert!(said.contains(word), "no `{word}` in: {said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

fn onset_run(config: &std::path::Path) -> Output {
    run(command("timeout").arg("20").arg(ONSET).args(["run", "--config"]).arg(config))
}

#[test]
fn a_bad_config_is_reported_by_key() {
    let folder = Folder::new();
    let bad = folder.file("bad.toml", "[tracer.cpuidle]\nevery = \"10 parsecs\"\n[logg]\n");
    for command_name in ["run", "check"] {
        let output = run(command(ONSET).args([command_name, "--config"]).arg(&bad));
        refused(&output, 2, &["tracer.cpuidle.every", "logg"]);
    }
    refused(
        &run(command(ONSET).args(["check", "--config", "/nowhere/onset.toml"])),
        2,
        &["/nowhere/onset.toml"],
    );
    refused(&run(command(ONSET).arg("frobnicate")), 2, &["frobnicate"]);
    refused(&run(command(ONSET).args(["show"])), 2, &["ID"]);
    let no_log = config(&folder, "", "");
    for reader in [&["events"][..], &["verify"], &["show", "0123"]] {
        refused(
            &run(command(ONSET).args(reader).arg("--config").arg(&no_log)),
            1,
            &["no onset has written there"],
        );
    }
    let printed = done(command(ONSET).arg("config"));
    let default = folder.file("default.toml", &printed);
    done(command(ONSET).args(["check", "--config"]).arg(default));
}

#[test]
fn a_second_agent_and_a_port_in_use_are_refused() {
    if !root("a second agent") {
        return;
    }
    let agent = Agent::start("");
    let socket = agent.folder.0.join("socket").display().to_string();
    refused(&onset_run(&agent.config), 1, &["another onset", &socket]);
    let folder = Folder::new();
    let same_log = config(&folder, "", "");
    let text = std::fs::read_to_string(&same_log).unwrap();
    let log = agent.log().display().to_string();
    std::fs::write(&same_log, text.replace(&folder.0.join("log").display().to_string(), &log)).unwrap();
    refused(&onset_run(&same_log), 1, &["another onset", &log]);
    let taken = config(&folder, "", "");
    let text = std::fs::read_to_string(&taken).unwrap().replace("127.0.0.1:0", &agent.address.to_string());
    std::fs::write(&taken, text).unwrap();
    refused(&onset_run(&taken), 1, &[&agent.address.to_string(), "`listen` in [http]"]);
    let same_socket = config(&folder, "", "");
    let text = std::fs::read_to_string(&same_socket).unwrap();
    let text = text.replace(&folder.0.join("socket").display().to_string(), &socket);
    std::fs::write(&same_socket, text).unwrap();
    refused(&onset_run(&same_socket), 1, &["socket"]);
    assert_eq!(agent.get("/healthz").0, 200, "the first goes on");
}

#[test]
fn without_root_the_error_names_the_remedy() {
    if !root("to drop root") {
        return;
    }
    let folder = Folder::new();
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&folder.0, std::fs::Permissions::from_mode(0o755)).unwrap();
    let file = config(&folder, "", "");
    let binary = folder.0.join("onset");
    std::fs::copy(ONSET, &binary).unwrap();
    let nobody = |arguments: &[&str]| {
        run(command("setpriv")
            .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
            .arg(&binary)
            .args(arguments)
            .arg("--config")
            .arg(&file))
    };
    refused(&nobody(&["run"]), 1, &["root"]);
    let doctor = nobody(&["doctor"]);
    assert_eq!(doctor.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&doctor.stdout).contains("CAP_BPF"), "{doctor:?}");
}

#[test]
fn without_btf_the_remaining_tracers_run() {
    if !root("no BTF") {
        return;
    }
    let folder = Folder::new();
    let sys = folder.0.join("sys");
    std::fs::create_dir_all(sys.join("kernel")).unwrap();
    let agent = Agent::start(&format!("[paths]\nsys = \"{}\"\n", sys.display()));
    let page = await_that("the first walk of /proc", SOON, || {
        let (status, page) = agent.get("/readyz");
        (status == 200 && agent.metric("onset_samples_total{tracer=\"dload\"}")? > 0.0).then_some(page)
    });
    assert!(page.contains("cpuidle unsupported") && page.contains("BTF"), "{page}");
    assert!(page.contains("dload active"), "it walks /proc instead: {page}");
    let doctor = run(&mut agent.onset(&["doctor"]));
    assert_eq!(doctor.status.code(), Some(1));
    let said = String::from_utf8_lossy(&doctor.stdout);
    assert!(said.contains("CONFIG_DEBUG_INFO_BTF") && said.contains("/proc walk"), "{said}");
    assert_eq!(agent.leave(), Some(0));
}

#[test]
fn doctor_finds_nothing_missing_here() {
    if !root("doctor") {
        return;
    }
    let folder = Folder::new();
    let file = config(&folder, "", "");
    let text = done(command(ONSET).args(["doctor", "--config"]).arg(&file));
    for word in ["cpuidle", "cpusys", "dload", "perf_event", "iter/task"] {
        assert!(text.contains(word), "{word} in {text}");
    }
    let json = done(command(ONSET).args(["doctor", "--json", "--config"]).arg(&file));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert!(json["tracers"].as_array().unwrap().iter().all(|tracer| tracer["runs"] == true), "{json:#}");
}

/// A tmpfs of so many KiB, unmounted on drop.
struct Small(Folder);

impl Small {
    fn new(kib: u32) -> Small {
        let folder = Folder::new();
        done(
            command("mount")
                .args(["-t", "tmpfs", "-o", &format!("size={kib}k"), "onset-live"])
                .arg(&folder.0),
        );
        Small(folder)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        run(command("umount").arg("-l").arg(&self.0.0));
    }
}

fn log_in(folder: &Folder, dir: &std::path::Path, segment: &str, budget: &str) -> std::path::PathBuf {
    let file = config(folder, "", &only("dload", "every = \"1h\""));
    let text = std::fs::read_to_string(&file).unwrap();
    let text = text
        .replace(&folder.0.join("log").display().to_string(), &dir.display().to_string())
        .replace("4MiB", segment)
        .replace("64MiB", budget)
        .replace("[log]", "[log]\ndocument = \"16KiB\"");
    std::fs::write(&file, text).unwrap();
    file
}

#[test]
fn a_full_disk_at_start_is_an_error() {
    if !root("a full disk") {
        return;
    }
    let (small, folder) = (Small::new(1024), Folder::new());
    let dir = small.0.0.join("log");
    refused(&onset_run(&log_in(&folder, &dir, "4MiB", "64MiB")), 1, &[&dir.display().to_string(), "space"]);
}

#[test]
fn a_disk_that_fills_up_later_is_counted_and_events_resume_with_room() {
    if !root("a disk that fills up") {
        return;
    }
    let (small, folder) = (Small::new(1024), Folder::new());
    let file = log_in(&folder, &small.0.0.join("log"), "64KiB", "64MiB");
    let agent = Agent::start_in(folder, file);
    // Whatever room there is, someone else takes it.
    let filler = small.0.0.join("filler");
    run(command("dd").args(["if=/dev/zero", "bs=4k"]).arg(format!("of={}", filler.display())));
    let refusals = || {
        let (_, page) = agent.get("/metrics");
        page.lines()
            .filter(|line| line.starts_with("onset_faults_total{tracer=\"dload\""))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum::<f64>()
    };
    await_that("the segments that it has to be full", SOON * 3, || {
        run(&mut agent.onset(&["trigger", "dload"]));
        (refusals() > 0.0).then_some(())
    });
    assert_eq!(agent.get("/healthz").0, 200);
    std::fs::remove_file(&filler).unwrap();
    let again = || run(&mut agent.onset(&["trigger", "dload"])).status.success().then_some(());
    await_that("room again", SOON, again);
    assert_eq!(run(&mut agent.onset(&["verify"])).status.code(), Some(0));
}

#[test]
fn a_deleted_log_directory_does_not_end_the_agent() {
    if !root("a vanished folder") {
        return;
    }
    let agent = Agent::start(&only("dload", "every = \"1h\""));
    done(&mut agent.onset(&["trigger", "dload"]));
    std::fs::remove_dir_all(agent.log()).unwrap();
    // Counted, or put into a new folder: in any case the agent goes on, and events are kept again.
    await_that("an event that is kept", SOON, || {
        let kept = run(&mut agent.onset(&["trigger", "dload"])).status.success();
        (kept && agent.log().exists() && !agent.events().is_empty()).then_some(())
    });
    assert_eq!(agent.get("/healthz").0, 200);
    assert_eq!(agent.leave(), Some(0));
}

//! `make install`, `make uninstall` and `make dist`: what is where, that it is so again the second time,
//! and that a config and a log outlive an upgrade and a roll-back.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use serde_json::Value;

use crate::file;
use crate::rig::{Agent, Folder, ONSET, command, done, root, run};

/// The program without what a debugger wants, as a release is: it is copied, packed and read often.
fn program() -> &'static Path {
    static MADE: LazyLock<PathBuf> = LazyLock::new(|| {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("onset");
        done(command("strip").arg("-o").arg(&path).arg(ONSET));
        path
    });
    &MADE
}

fn make(target: &str, at: &Path, more: &[&str]) -> Command {
    let mut make = command("make");
    make.arg("-s").arg("-C").arg(file("")).arg(target).arg(format!("DESTDIR={}", at.display()));
    make.arg(format!("BINARY={}", program().display())).args(more);
    // What runs these tests may have an environment of its own.
    make.env_remove("MAKEFLAGS").env_remove("PREFIX").env_remove("PURGE").env_remove("SYSCTL");
    make
}

/// Every file below a folder, with its mode and its bytes' sum.
fn files(at: &Path) -> BTreeMap<PathBuf, (u32, usize, u64)> {
    let mut found = BTreeMap::new();
    let mut open = vec![at.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                open.push(entry.path());
                continue;
            }
            let bytes = fs::read(entry.path()).unwrap();
            let sum = bytes.iter().fold(7_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add((*byte).into()));
            let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
            found.insert(entry.path().strip_prefix(at).unwrap().to_owned(), (mode, bytes.len(), sum));
        }
    }
    found
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn installing_twice_is_idempotent_and_uninstalling_keeps_config_and_log() {
    let folder = Folder::new();
    let at = folder.0.join("there");
    done(&mut make("install", &at, &["PREFIX=/usr"]));
    let first = files(&at);
    for (path, want) in [
        ("usr/bin/onset", 0o755),
        ("usr/lib/systemd/system/onset.service", 0o644),
        ("usr/lib/sysusers.d/onset.conf", 0o644),
        ("usr/share/onset/prometheus/alerts.yml", 0o644),
        ("etc/onset/onset.toml", 0o644),
    ] {
        assert_eq!(first.get(Path::new(path)).map(|file| file.0), Some(want), "{path} in {:?}", first.keys());
    }
    assert_eq!(mode(&at.join("var/lib/onset")), 0o700);
    let unit = fs::read_to_string(at.join("usr/lib/systemd/system/onset.service")).unwrap();
    assert!(unit.contains("\nExecStart=/usr/bin/onset run --config /etc/onset/onset.toml\n"), "{unit}");
    let config = at.join("etc/onset/onset.toml");
    done(command(ONSET).arg("check").arg("--config").arg(&config));
    let parsed = onset::config::Config::load(Some(&config), onset::tracer::TRACERS).unwrap();
    // Both are folders that the unit makes writable.
    assert!(parsed.socket.starts_with("/run/onset/") && parsed.log.dir == Path::new("/var/lib/onset"));
    done(&mut make("install", &at, &["PREFIX=/usr"]));
    assert_eq!(files(&at), first, "again");

    done(&mut make("install", &at, &["PREFIX=/usr", "SYSCTL=1"]));
    let knobs = fs::read_to_string(at.join("usr/lib/sysctl.d/50-onset.conf")).unwrap();
    assert!(knobs.contains("\nkernel.perf_event_paranoid = 2\n"), "{knobs}");

    fs::write(&config, "region = \"mine\"\n").unwrap();
    fs::write(at.join("var/lib/onset/kept"), "").unwrap();
    done(&mut make("install", &at, &["PREFIX=/usr"]));
    assert_eq!(fs::read_to_string(&config).unwrap(), "region = \"mine\"\n");
    fs::write(&config, "regoin = \"\"\n").unwrap();
    let said = run(&mut make("install", &at, &["PREFIX=/usr"]));
    let words = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.status.success() && words.contains("regoin") && words.contains("mend it"), "{words}");

    done(&mut make("uninstall", &at, &["PREFIX=/usr"]));
    let left: Vec<_> = files(&at).into_keys().collect();
    assert_eq!(left, [Path::new("etc/onset/onset.toml"), Path::new("var/lib/onset/kept")]);
    done(&mut make("uninstall", &at, &["PREFIX=/usr", "PURGE=1"]));
    assert!(files(&at).is_empty());
    done(&mut make("uninstall", &at, &["PREFIX=/usr"]));
}

#[test]
fn install_without_a_binary_fails_with_a_remedy() {
    let folder = Folder::new();
    let at = folder.0.join("there");
    let said = run(&mut make("install", &at, &["BINARY=/nonexistent"]));
    assert!(
        !said.status.success() && String::from_utf8_lossy(&said.stderr).contains("make release"),
        "{said:?}"
    );
    assert!(!at.exists());
}

#[test]
fn an_upgrade_and_a_roll_back_keep_config_and_log() {
    if !root("an agent that is upgraded") {
        return;
    }
    let folder = Folder::new();
    let at = folder.0.join("there");
    let config = at.join("etc/onset/onset.toml");
    let ids = |agent: &Agent| -> Vec<String> {
        agent.events().iter().map(|event| event["tracer_id"].as_str().unwrap().to_owned()).collect()
    };
    let mut known = Vec::new();
    let mut kept = None;
    // There is one format of the log so far: old and new are the same program, installed anew each time.
    for version in ["old", "new", "old again"] {
        done(&mut make("install", &at, &[]));
        if kept.is_none() {
            let text = fs::read_to_string(&config).unwrap();
            let text = text
                .replace("/run/onset/onset.sock", at.join("socket").to_str().unwrap())
                .replace("\"/var/lib/onset\"", &format!("{:?}", at.join("var/lib/onset")))
                .replace("127.0.0.1:9710", "127.0.0.1:0");
            fs::write(&config, &text).unwrap();
            kept = Some(text);
        }
        assert_eq!(fs::read_to_string(&config).ok(), kept, "{version}");
        let mut installed = command(at.join("usr/local/bin/onset"));
        let agent = Agent::start_by(&mut installed, Folder::new(), config.clone());
        assert_eq!(ids(&agent), known, "{version} reads what was there");
        known.push(done(&mut agent.onset(&["trigger", "dload"])).trim().to_owned());
        assert_eq!(ids(&agent), known, "{version} adds to it");
        assert_eq!(agent.leave(), Some(0));
    }
    let verified = run(command(ONSET).arg("verify").arg("--config").arg(&config));
    assert!(verified.status.success(), "{verified:?}");
    done(&mut make("uninstall", &at, &[]));
    let listed = done(command(ONSET).args(["events", "--json", "--config"]).arg(&config));
    let left: Vec<String> = listed
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["tracer_id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(left, known);
}

#[test]
fn the_tarball_is_reproducible_verifies_its_sums_and_installs() {
    let folder = Folder::new();
    let made = |name: &str| {
        let out = folder.0.join(name);
        let said = done(
            command(file("deploy/dist"))
                .env("BINARY", program())
                .env("OUT", &out)
                .env_remove("SOURCE_DATE_EPOCH"),
        );
        PathBuf::from(said.lines().last().unwrap())
    };
    let (first, second) = (made("first"), made("second"));
    assert!(fs::read(&first).unwrap() == fs::read(&second).unwrap(), "byte for byte");
    let name = first.file_name().unwrap().to_str().unwrap().to_owned();
    done(
        command("sha256sum")
            .args(["--check", "--strict"])
            .arg(format!("{name}.sha256"))
            .current_dir(first.parent().unwrap()),
    );
    let listed = done(command("tar").arg("-tvzf").arg(&first));
    let names: Vec<&str> = listed.lines().map(|line| line.rsplit(' ').next().unwrap()).collect();
    assert!(names.is_sorted(), "{names:#?}");
    assert!(listed.lines().all(|line| line.contains(" 0/0 ")), "nobody's: {listed}");
    done(command("tar").arg("-xzf").arg(&first).arg("-C").arg(&folder.0));
    let there = folder.0.join(name.trim_end_matches(".tar.gz"));
    done(command("sha256sum").args(["--check", "--strict", "--quiet", "SHA256SUMS"]).current_dir(&there));
    let sums = fs::read_to_string(there.join("SHA256SUMS")).unwrap().lines().count();
    assert_eq!(sums + 1, files(&there).len(), "each file has its sum");
    for wanted in [
        "onset",
        "systemd/onset.service",
        "kubernetes/onset.yaml",
        "container/Containerfile",
        "grafana/hosts.json",
        "prometheus/alerts.yml",
        "docs/privileges.md",
        "README.md",
        "LICENSE",
        "LICENSE.bpf",
    ] {
        assert!(there.join(wanted).is_file(), "{wanted}");
    }
    let at = folder.0.join("at");
    done(command(there.join("install")).env("DESTDIR", &at).env_remove("BINARY").env_remove("PREFIX"));
    assert!(fs::read(at.join("usr/local/bin/onset")).unwrap() == fs::read(program()).unwrap());
}

/// What an installation changes of the host, kept in memory: nothing of it is there afterwards.
const ON_TOP: &str = "set -e
work=$1
mount -t tmpfs none \"$work\"
for folder in etc usr/local var/lib; do
    mkdir -p \"$work/$folder/upper\" \"$work/$folder/work\"
    mount -t overlay overlay -o \"lowerdir=/$folder,upperdir=$work/$folder/upper,workdir=$work/$folder/work\" \"/$folder\"
done
make -s -C \"$0\" install
make -s -C \"$0\" install
echo \"user $(getent passwd onset)\"
echo \"log $(stat -c '%U:%G %a' /var/lib/onset)\"
systemd-analyze verify /usr/local/lib/systemd/system/onset.service
make -s -C \"$0\" uninstall
[ -d /var/lib/onset ] && [ -e /etc/onset/onset.toml ] && [ ! -e /usr/local/bin/onset ]
make -s -C \"$0\" uninstall PURGE=1
[ ! -e /var/lib/onset ] && [ ! -e /etc/onset ] && ! getent passwd onset
";

#[test]
fn install_on_the_host_creates_the_user_and_its_log_directory() {
    if !root("an installation") {
        return;
    }
    let folder = Folder::new();
    let mut there = command("unshare");
    there.args(["--mount", "--propagation", "private", "bash", "-c", ON_TOP]).arg(file("")).arg(&folder.0);
    there.env("BINARY", program()).env_remove("MAKEFLAGS").env_remove("PREFIX").env_remove("DESTDIR");
    let said = done(there.env_remove("PURGE").env_remove("SYSCTL"));
    let line = |word: &str| {
        said.lines().find_map(|line| line.strip_prefix(word)).unwrap_or_else(|| panic!("{said}"))
    };
    assert!(line("user ").starts_with("onset:x:") && line("user ").ends_with("/nologin"), "{said}");
    assert_eq!(line("log "), "onset:onset 700");
}

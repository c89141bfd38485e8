//! The log under fire, through the real binary: segments that are taken away, cut and exchanged
//! under a running agent, a disk that is full, rot, a later format, and times that jump.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use onset::clock::Wall;
use onset::log::Writer;
use serde_json::Value;

use crate::rig::{
    Agent, Folder, KillOnDrop, Lines, ONSET, SOON, await_that, command, done, only, root, run, start,
};

/// The segments, oldest first.
fn segments(dir: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap().path());
    let mut segments: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|extension| extension == "seg")).collect();
    segments.sort_unstable();
    segments
}

fn last(dir: &Path) -> PathBuf {
    segments(dir).pop().unwrap()
}

/// A folder with a log of these documents in it.
fn log_of(documents: &[String]) -> (Folder, Vec<String>) {
    let folder = Folder::new();
    let log = onset::config::Log {
        dir: folder.0.join("log"),
        segment: 256 << 10,
        budget: 64 << 20,
        document: 64 << 10,
        sync: Duration::from_secs(1),
    };
    let (mut writer, _) = Writer::open(&log).unwrap();
    let mut put = |text: &String| {
        await_that("room in the log", SOON, || {
            let appended = writer.append(|_, to| {
                to[..text.len()].copy_from_slice(text.as_bytes());
                Some(text.len())
            });
            appended.ok()?
        })
    };
    let ids = documents.iter().map(|text| put(text).to_string()).collect();
    (folder, ids)
}

fn document(number: usize, wall: u64) -> String {
    let time = Wall(wall);
    format!(r#"{{"tracer_name":"dload","tracer_time":"{time}","tracer_data":{{"number":{number}}}}}"#)
}

fn onset(arguments: &[&str], dir: &Path) -> (Option<i32>, String, String) {
    let output = run(command(ONSET).args(arguments).arg("--dir").arg(dir));
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// Has it capture now. Returns the event's id. A slow disk may not have the next segment made in
/// the time that the loop waits for it: then the event is refused and counted, and asked for again.
fn trigger(agent: &Agent) -> String {
    await_that("an event", SOON, || {
        let tried = run(&mut agent.onset(&["trigger", "dload"]));
        let said = String::from_utf8_lossy(&tried.stderr).into_owned();
        assert!(tried.status.success() || said.contains("could not be kept in the log"), "{said}");
        tried.status.success().then(|| String::from_utf8(tried.stdout).unwrap().trim().to_owned())
    })
}

/// Follows the log, whoever writes it. Returns its lines of JSON.
fn follow(agent: &Agent) -> (KillOnDrop, Lines) {
    let mut follower = start(agent.onset(&["events", "--follow", "--json"]).stdout(Stdio::piped()));
    let lines = Lines::of(follower.0.stdout.take().unwrap());
    (follower, lines)
}

fn id(line: &str) -> String {
    let event: Value = serde_json::from_str(line).unwrap();
    event["tracer_id"].as_str().unwrap().to_owned()
}

#[test]
fn events_are_kept_whatever_happens_to_segments_under_a_running_agent() {
    if !root("a running agent") {
        return;
    }
    let mut agent = Agent::start(&only("dload", "every = \"1h\""));
    let (foreign, _) = log_of(&[document(0, 1 << 40)]);
    let (_follower, followed) = follow(&agent);
    let mut seen = BTreeSet::new();
    let mut met = |lines: &Lines, wanted: &str| {
        lines.wait("the event", SOON, |line| {
            let id = id(line);
            assert!(seen.insert(id.clone()), "{id} was shown twice");
            (id == wanted).then_some(())
        });
    };
    met(&followed, &trigger(&agent));
    let log = agent.log();
    let aside = agent.folder.0.join("aside");
    fs::create_dir(&aside).unwrap();
    type Fire<'a> = (&'a str, Box<dyn Fn() + 'a>);
    let fires: [Fire; 8] = [
        ("deleted", Box::new(|| fs::remove_file(last(&log)).unwrap())),
        (
            "cut short",
            Box::new(|| fs::OpenOptions::new().write(true).open(last(&log)).unwrap().set_len(100).unwrap()),
        ),
        ("cut to nothing", Box::new(|| drop(fs::File::create(last(&log)).unwrap()))),
        ("moved away", Box::new(|| fs::rename(last(&log), aside.join("moved")).unwrap())),
        (
            "replaced",
            Box::new(|| {
                fs::hard_link(last(&log), aside.join("link")).unwrap();
                fs::write(aside.join("other"), vec![7; 4 << 20]).unwrap();
                fs::rename(aside.join("other"), last(&log)).unwrap();
            }),
        ),
        (
            "exchanged",
            Box::new(|| {
                let there = segments(&log);
                fs::rename(&there[0], aside.join("first")).unwrap();
                fs::rename(last(&log), &there[0]).unwrap();
                fs::rename(aside.join("first"), &there[there.len() - 1]).unwrap();
            }),
        ),
        ("all deleted, with the folder", Box::new(|| fs::remove_dir_all(&log).unwrap())),
        ("moved away with the folder", Box::new(|| fs::rename(&log, aside.join("log")).unwrap())),
    ];
    for (number, (what, fire)) in (1..).zip(&fires) {
        fire();
        let new = trigger(&agent);
        met(&followed, &new);
        assert!(agent.events().iter().any(|event| event["tracer_id"] == *new), "{what}");
        let lost = agent.metric("onset_faults_total{tracer=\"onset\",fault=\"log_segment_lost\"}");
        assert_eq!(lost, Some(f64::from(number)), "{what}");
    }
    // One of another log, older than ours by its name, is shown and otherwise lets ours be.
    fs::copy(last(&foreign.0.join("log")), log.join("0000000000000000.seg")).unwrap();
    met(&followed, &trigger(&agent));
    agent.signal(libc::SIGKILL);
    agent.child.0.wait().unwrap();
    agent.again();
    met(&followed, &trigger(&agent));
    assert_eq!(run(&mut agent.onset(&["verify"])).status.code(), Some(0));
    assert_eq!(agent.leave(), Some(0));
}

/// A small filesystem of its own.
struct Mount(PathBuf);

impl Mount {
    fn new(at: PathBuf, size: &str) -> Mount {
        fs::create_dir(&at).unwrap();
        done(command("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(&at));
        Mount(at)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = command("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_fails_the_start_and_is_counted_by_a_running_agent() {
    if !root("mount") {
        return;
    }
    let folder = Folder::new();
    let mount = Mount::new(folder.0.join("disk"), "2300k");
    let dir = mount.0.join("log");
    let text = format!(
        "socket = \"{at}/socket\"\n[http]\nlisten = \"127.0.0.1:0\"\n[log]\ndir = \"{log}\"\nsegment = \"1MiB\"\nbudget = \"64MiB\"\ndocument = \"256KiB\"\n{rest}",
        at = folder.0.display(),
        log = dir.display(),
        rest = only("dload", "every = \"1h\"")
    );
    let config = folder.file("onset.toml", &text);
    let filler = mount.0.join("filler");
    fs::write(&filler, vec![1; 1400 << 10]).unwrap();
    let refused = run(command(ONSET).args(["run", "--config"]).arg(&config));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("No space left on device") && said.contains("make room there"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    // Room for one segment, and no more.
    fs::write(&filler, vec![1; 512 << 10]).unwrap();
    let agent = Agent::start_in(folder, config);
    let first = trigger(&agent);
    // The agent has it open, so it takes its room until there is another.
    fs::remove_file(last(&dir)).unwrap();
    // What is not in the log is nobody's event.
    let failed = run(&mut agent.onset(&["trigger", "dload"]));
    assert_ne!(failed.status.code(), Some(0), "{failed:?}");
    let fault = |name: &str| {
        agent.metric(&format!("onset_faults_total{{tracer=\"onset\",fault=\"{name}\"}}")).unwrap_or(0.0)
    };
    assert!(fault("log_append") >= 1.0);
    await_that("the failed segment to be counted", SOON, || {
        (fault("log_segment_not_made") > 0.0).then_some(())
    });
    fs::remove_file(&filler).unwrap();
    let id = await_that("an event once there is room", SOON, || {
        let tried = run(&mut agent.onset(&["trigger", "dload"]));
        tried.status.success().then(|| String::from_utf8(tried.stdout).unwrap().trim().to_owned())
    });
    assert_ne!(id, first);
    let events = agent.events();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["tracer_id"], *id);
    assert_eq!(run(&mut agent.onset(&["verify"])).status.code(), Some(0));
    assert_eq!(agent.leave(), Some(0));
}

#[test]
fn verify_finds_corruption_anywhere_and_exits_with_1() {
    let documents: Vec<_> = (0..4000).map(|number| document(number, 1 << 40)).collect();
    let (folder, ids) = log_of(&documents);
    let dir = folder.0.join("log");
    assert!(segments(&dir).len() > 1);
    let (code, out, _) = onset(&["verify"], &dir);
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains("records      4000") && out.contains("bad records  0"), "{out}");
    let path = &segments(&dir)[0];
    let sound = fs::read(path).unwrap();
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    for (spot, records, line) in [
        (0, 4000, "bad segments 1"),
        (8, 4000, "bad segments 1"),
        (63, 4000, "bad segments 1"),
        (100, 3999, "bad records  1"),
        (100_000, 3999, "bad records  1"),
    ] {
        file.write_all_at(&[!sound[spot]], spot as u64).unwrap();
        let (code, out, _) = onset(&["verify"], &dir);
        assert_eq!(code, Some(1), "byte {spot}: {out}");
        assert!(out.contains(line) && out.contains(&format!("records      {records}")), "byte {spot}: {out}");
        let (code, listed, _) = onset(&["events"], &dir);
        let words: BTreeSet<_> = listed.split_whitespace().collect();
        let shown = ids.iter().filter(|id| words.contains(id.as_str())).count();
        assert_eq!((code, shown, listed.lines().count()), (Some(0), records, records), "byte {spot}");
        file.write_all_at(&[sound[spot]], spot as u64).unwrap();
    }
    // A later format is refused by every command, wherever it is.
    for path in segments(&dir) {
        let sound = fs::read(&path).unwrap();
        let mut header = sound[..64].to_vec();
        header[8] = 2;
        let sum = crc32fast::hash(&header[..60]);
        header[60..].copy_from_slice(&sum.to_le_bytes());
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(&header, 0).unwrap();
        for arguments in [&["verify"][..], &["events"]] {
            let (code, _, said) = onset(arguments, &dir);
            assert_eq!(code, Some(1), "{arguments:?}: {said}");
            let wanted = format!("{} has log format 2, but this onset only knows up to 1", path.display());
            assert!(said.contains(&wanted), "{arguments:?}: {said}");
        }
        file.write_all_at(&sound[..64], 0).unwrap();
    }
}

#[test]
fn a_stepped_clock_changes_no_order_and_since_uses_document_times() {
    let hour = 3_600_000;
    let now = onset::sys::now().wall.0;
    // An hour back, a day ahead, back again, and the beginning of all time.
    let times = [now - 2 * hour, now - hour / 2, now + 24 * hour, now - 3 * hour, now - hour / 4, 0, now];
    let documents: Vec<_> = times.iter().enumerate().map(|(at, time)| document(at, *time)).collect();
    let (folder, ids) = log_of(&documents);
    let dir = folder.0.join("log");
    assert!(ids.is_sorted(), "numbers grow");
    let shown = |arguments: &[&str]| {
        let (code, out, _) = onset(arguments, &dir);
        assert_eq!(code, Some(0));
        let numbers: Vec<_> = out.lines().map(|line| ids.iter().position(|id| line.contains(id))).collect();
        numbers.into_iter().map(Option::unwrap).collect::<Vec<_>>()
    };
    assert_eq!(shown(&["events"]), [0, 1, 2, 3, 4, 5, 6]);
    assert_eq!(shown(&["events", "--since", "1h"]), [1, 2, 4, 6]);
    assert_eq!(shown(&["events", "--since", "4h"]), [0, 1, 2, 3, 4, 6]);
    let (code, _, _) = onset(&["verify"], &dir);
    assert_eq!(code, Some(0));
}

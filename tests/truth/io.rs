//! Bytes read from and written to a disk, by file, against what the programs counted themselves.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::cgroup::Cgroup;
use crate::frozen::Disk;
use crate::programs::{Worker, pinned};
use crate::rig::{command, done, number};
use crate::row::{Bound, Measured, Row, measured, row};
use crate::stage::{CAPTURE, Window, lasted};

/// Of each file that the program writes or reads: its name there, and the row.
const FILES: [(&str, &str); 5] = [
    ("buffered", "bytes of a file, written and synced"),
    ("direct", "bytes of a file, written past the cache"),
    ("synced", "bytes of a file, written with O_SYNC"),
    ("mapped", "bytes of a file, written to its mapping"),
    ("read", "bytes of a file, read"),
];
const FIO: &str = "bytes of a file of fio's";
const BRIEF: &str = "bytes of temporary files, by container";
const BRIEF_WRONG: &str = "temporary files with another's name";
const LOST: &str = "I/O: records lost";

pub const ROWS: [Row; 9] = [
    row(FILES[0].1, "the program's own count", "bytes", Bound::Percent(2.0)),
    row(FILES[1].1, "the program's own count", "bytes", Bound::Percent(2.0)),
    row(FILES[2].1, "the program's own count", "bytes", Bound::Percent(2.0)),
    row(FILES[3].1, "the program's own count", "bytes", Bound::Percent(2.0)),
    row(FILES[4].1, "the program's own count", "bytes", Bound::Percent(2.0)),
    row(FIO, "fio's own report", "bytes", Bound::Percent(2.0)),
    row(BRIEF, "the programs' own counts; inode numbers are used again", "bytes", Bound::Percent(2.0)),
    row(BRIEF_WRONG, "each container writes to a folder of its own", "files", Bound::Exact),
    row(LOST, "none is, unless all of the host does more I/O than the maps hold", "records", Bound::Shown),
];

const BLOCK: u64 = 64 << 10;
const STEPS: u64 = 64;

/// Every file that a capture tells of: its path, bytes read and written, and whose.
fn files(event: &Value) -> Vec<(&str, f64, Option<&str>)> {
    let rows = event["tracer_data"]["process_file_io_stats"].as_array().unwrap();
    let bytes = |file: &Value, field: &str| file[field].as_f64().unwrap() * lasted(event);
    let mut all = Vec::new();
    for row in rows {
        for file in row["total_files"].as_array().unwrap() {
            let path = file["path"].as_str().unwrap_or_default();
            let moved = bytes(file, "disk_read_bps") + bytes(file, "disk_write_bps");
            all.push((path, moved, row["container_id"].as_str()));
        }
    }
    all
}

fn bytes_of(event: &Value, path: &Path) -> f64 {
    files(event).iter().filter(|(told, ..)| Path::new(told) == path).map(|(_, bytes, _)| bytes).sum()
}

/// Starts a program that writes into a folder.
fn writer(window: &Window<'_>, cgroup: &Cgroup, way: &str, folder: &Path, steps: u64) -> Worker {
    window.known(cgroup);
    let mut write = pinned(1, &window.stage.programs.write);
    write.arg(way).arg(folder).arg(steps.to_string());
    Worker::in_container(cgroup, &mut write, "write")
}

/// What it says that it wrote, by the file's name.
fn counts(worker: &Worker) -> Vec<(String, f64)> {
    let mut all = Vec::new();
    worker.says("word that it is done", |line| {
        if let Some((name, bytes)) = line.split_once(' ') {
            all.push((name.to_owned(), bytes.parse().unwrap()));
        }
        (line == "done").then_some(())
    });
    all
}

/// Where in the table a file's bytes are, and what its program counted.
type Counted = Vec<(&'static str, PathBuf, f64)>;

/// All programs beside each other, each with a disk of its own, in one capture of the host.
pub fn measure(window: &Window<'_>) -> Vec<Measured> {
    let disks = [(); 3].map(|()| Disk::new());
    let (mut ways, mut brief) = (Ways::new(window, &disks[0]), Brief::new(window, &disks[1]));
    let mut fio = Fio::new(window, &disks[2]);
    let mut asked = window.capture("iotracing", None, CAPTURE);
    let lasting = window.begin();
    ways.worker.go(lasting);
    brief.workers.iter_mut().for_each(|worker| worker.go(lasting));
    let of_fio = fio.run(lasting);
    let counted = [ways.counted(&disks[0]), vec![of_fio]].concat();
    let truth = brief.counted();
    asked.outlasts(window);
    let answered = asked.answer();
    window.watched_by(&answered);
    let event = answered.event;
    let mut all: Vec<Measured> =
        counted.iter().map(|(row, path, truth)| measured(row, bytes_of(&event, path), *truth)).collect();
    all.extend(brief.told(&event, truth));
    all.push(measured(LOST, number(&event, "/tracer_data/lost_samples"), 0.0));
    all
}

/// One program that writes and reads files in all ways.
struct Ways {
    worker: Worker,
    _cgroup: Cgroup,
}

impl Ways {
    fn new(window: &Window<'_>, disk: &Disk) -> Ways {
        let cgroup = Cgroup::new("writes");
        // Past the cache, so that it is read from the disk.
        let output = format!("of={}", disk.path().join("read").display());
        let blocks = [format!("bs={BLOCK}"), format!("count={STEPS}")];
        done(command("dd").args(["if=/dev/zero", "oflag=direct", "status=none", &output]).args(blocks));
        Ways { worker: writer(window, &cgroup, "all", disk.path(), STEPS), _cgroup: cgroup }
    }

    fn counted(&self, disk: &Disk) -> Counted {
        let counts = counts(&self.worker);
        let one = |(name, row): &(&str, &'static str)| {
            let (_, truth) = counts.iter().find(|(counted, _)| counted == name).unwrap();
            (*row, disk.path().join(name), *truth)
        };
        FILES.iter().map(one).collect()
    }
}

/// Two containers with temporary files in turn: each is told to be of its container's folder, or of none.
struct Brief {
    workers: [Worker; 2],
    cgroups: [Cgroup; 2],
    folders: [PathBuf; 2],
}

impl Brief {
    fn new(window: &Window<'_>, disk: &Disk) -> Brief {
        let cgroups = ["one", "other"].map(Cgroup::new);
        let folders = ["one", "other"].map(|name| disk.path().join(name));
        folders.iter().for_each(|folder| fs::create_dir(folder).unwrap());
        let workers = [0, 1].map(|at| writer(window, &cgroups[at], "brief", &folders[at], 12));
        Brief { workers, cgroups, folders }
    }

    fn counted(&self) -> [f64; 2] {
        self.workers.each_ref().map(|worker| counts(worker).iter().map(|(_, bytes)| bytes).sum())
    }

    fn told(&self, event: &Value, truth: [f64; 2]) -> Vec<Measured> {
        let (mut said, mut wrong) = ([0.0, 0.0], 0.0);
        for (path, bytes, container) in files(event) {
            let Some(place) = self.cgroups.iter().position(|cgroup| Some(&*cgroup.id) == container) else {
                continue;
            };
            let (path, own) = (Path::new(path), &self.folders[place]);
            let named = path.is_absolute() && !path.starts_with("/dev");
            if named && !path.starts_with(own) {
                println!("WRONG FILE: {} for {}", path.display(), own.display());
                wrong += 1.0;
            }
            // Metadata is no file's, and a folder is none.
            if path != Path::new("[metadata]") && path != own {
                said[place] += bytes;
            }
        }
        for (place, (said, truth)) in said.iter().zip(truth).enumerate() {
            if (said - truth).abs() > truth * 0.02 {
                println!("MISSED BYTES: {said} of {truth} in {}:", self.folders[place].display());
                files(event).iter().for_each(|file| println!("  {file:?}"));
            }
        }
        let mut all = vec![measured(BRIEF_WRONG, wrong, 0.0)];
        all.extend(said.iter().zip(truth).map(|(said, truth)| measured(BRIEF, *said, truth)));
        all
    }
}

/// A file of fio's: its report says how much it wrote.
struct Fio {
    command: Command,
    file: PathBuf,
    _cgroup: Cgroup,
}

impl Fio {
    fn new(window: &Window<'_>, disk: &Disk) -> Fio {
        let cgroup = Cgroup::new("fio");
        window.known(&cgroup);
        // Whole from the start, lest fio writes it once before it counts.
        let file = disk.path().join("file");
        fs::write(&file, vec![1; 16 << 20]).unwrap();
        done(command("sync").arg("-f").arg(disk.path()));
        let mut fio = command("fio");
        fio.arg(format!("--filename={}", file.display()));
        fio.args(["--name=truth", "--rw=randrw", "--bs=4k", "--size=16m", "--direct=1", "--ioengine=libaio"]);
        fio.args(["--iodepth=8", "--rate=1m", "--time_based", "--output-format=json"]);
        cgroup.hold(&mut fio);
        Fio { command: fio, file, _cgroup: cgroup }
    }

    /// It takes a while to begin and to end.
    fn run(&mut self, lasting: Duration) -> (&'static str, PathBuf, f64) {
        let runtime = lasting.saturating_sub(Duration::from_secs(1)).as_millis();
        let report = done(self.command.arg(format!("--runtime={runtime}ms")));
        let report: Value = serde_json::from_str(&report[report.find('{').unwrap()..]).unwrap();
        let bytes = |way: &str| number(&report, &format!("/jobs/0/{way}/io_bytes"));
        (FIO, self.file.clone(), bytes("read") + bytes("write"))
    }
}

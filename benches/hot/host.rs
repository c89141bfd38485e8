//! A tick: all files of all containers. Linear in their number.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use onset::bpf::{Cgroups as Source, Followed, Meter, Site};
use onset::capture::release;
use onset::clock::{Now, Wall};
use onset::config::Config;
use onset::host::{Container, Mode, Reader};
use onset::tracer::TRACERS;

use crate::Scratch;
use crate::table::{Budget, head, line, ns_of};
use crate::tree::{OF_CONTAINERS, Tree};

/// One sampling of one container, all its files.
const EACH: Budget = Budget::Us(15.0);

pub fn lines(scratch: &Scratch) {
    head("tick, CPU of one container, all its files");
    let mut least = None;
    for count in [100, 500, 1000, 2000, 5000] {
        let mut tree = Tree::new(&scratch.0, count);
        let rounds = if count > 1000 { 9 } else { 25 };
        let each = ns_of(rounds, 1, || {
            tree.read(OF_CONTAINERS);
        }) / count as f64;
        let beside = least.map(|least| ("at 100", least));
        line(&format!("a written tree of {count} containers"), each, beside, EACH);
        least = least.or(Some(each));
        if count == 100 {
            let idle = ns_of(rounds, 1, || {
                tree.idle(OF_CONTAINERS);
            }) / count as f64;
            line("the same, all of them idle", idle, Some(("at work", each)), Budget::None);
        }
    }
    println!(
        "limit on open files: {}; where it is too low for all, bounds are read once a minute",
        onset::sys::raise_open_files().unwrap_or(0)
    );
    for count in [100, 500, 5000] {
        real(count);
    }
}

/// Empty cgroups of this kernel; gone when it is dropped.
struct Cgroups(Vec<PathBuf>);

impl Cgroups {
    fn new(count: usize) -> Cgroups {
        let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
        let mut roots: Vec<PathBuf> = hierarchies.map(|entry| entry.path()).collect();
        // v1 and hybrid hosts have one folder for each hierarchy, v2 hosts are one hierarchy.
        roots.retain(|root| !root.is_symlink() && root.join("cgroup.procs").exists());
        let unified = Path::new("/sys/fs/cgroup");
        if unified.join("cgroup.controllers").exists() {
            roots = vec![unified.into()];
        }
        let mut made = Vec::new();
        for number in 0..count {
            for root in &roots {
                let folder = root.join(format!("docker/{:064x}", 0xbe_0000 + number));
                if fs::create_dir_all(&folder).is_ok() {
                    made.push(folder);
                }
            }
        }
        Cgroups(made)
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for folder in &self.0 {
            let _ = fs::remove_dir(folder);
        }
    }
}

/// The kernel makes these files' texts anew at each reading, which is most of what it costs.
fn real(count: usize) {
    let _cgroups = Cgroups::new(count);
    let config = Config::parse("", TRACERS).expect("the defaults");
    let Ok(mut reader) = Reader::open(&config.paths, (2 * count).max(1024)) else {
        println!("{count} cgroups of this kernel: there are none to read here");
        return;
    };
    let found = reader.containers().len();
    if found < count {
        println!("{count} cgroups of this kernel: only {found} could be made (this takes root)");
        return;
    }
    // Ten seconds apart, and none is new any more.
    let mut ticks = (1..).map(|tick| Now {
        mono: onset::sys::now().mono + Duration::from_secs(60 + 10 * tick),
        wall: Wall(0),
    });
    let mut read = |reader: &mut Reader| reader.read(OF_CONTAINERS, ticks.next().expect("without end"));
    let each = ns_of(25, 1, || {
        reader.forget();
        read(&mut reader);
    }) / found as f64;
    let alone = alone(&reader) / found as f64;
    line(
        &format!("{found} cgroups of this kernel ({:?})", reader.mode()),
        each,
        Some(("reading alone", alone)),
        EACH,
    );
    let idle = ns_of(25, 1, || read(&mut reader)) / found as f64;
    line("the same, all of them idle", idle, Some(("at work", each)), Budget::None);
    by_program(&mut reader, &mut read, found, [each, idle]);
}

/// The same by one run of a program, beside the text files.
fn by_program(
    reader: &mut Reader,
    read: &mut impl FnMut(&mut Reader),
    found: usize,
    [text, text_idle]: [f64; 2],
) {
    let followed = Followed::create(16).expect("a map");
    let unified = reader.mode() == Mode::V2;
    let site = Site { sys: Path::new("/sys"), followed: &followed, unified, cpus: &[] };
    match Source::load(&site, release(Path::new("/proc")), &mut Meter::default()) {
        Ok(source) => reader.read_by(Ok(Box::new(source))),
        Err(why) => return println!("{found} cgroups by one run of a program: {why}"),
    }
    // Memory is believed to be where it is looked for once both ways agree, and here is none.
    let each = ns_of(25, 1, || {
        reader.forget();
        read(reader);
    }) / found as f64;
    line(&format!("{found} by one run of a program"), each, Some(("by text", text)), Budget::Us(3.0));
    let idle = ns_of(25, 1, || read(reader)) / found as f64;
    line("the same, all of them idle", idle, Some(("by text", text_idle)), Budget::None);
}

/// What the kernel takes for these files: each is read, and nothing is done with it.
fn alone(reader: &Reader) -> f64 {
    let (cpu, memory): (&[&str], &[&str]) = match reader.mode() {
        Mode::V2 => (
            &["cpu.stat", "cpu.max", "cpuset.cpus.effective", "cpu.pressure"],
            &["memory.current", "memory.stat", "memory.max"],
        ),
        _ => (
            &[
                "cpuacct/cpuacct.usage",
                "cpuacct/cpuacct.stat",
                "cpu/cpu.stat",
                "cpu/cpu.cfs_quota_us",
                "cpuset/cpuset.effective_cpus",
            ],
            &["memory/memory.usage_in_bytes", "memory/memory.stat"],
        ),
    };
    let open = |names: &[&str]| -> Vec<File> {
        let path = |name: &str, below: &str| match name.split_once('/') {
            Some((hierarchy, file)) => format!("/sys/fs/cgroup/{hierarchy}{below}/{file}"),
            None => format!("/sys/fs/cgroup{below}/{name}"),
        };
        let of = |container: Container<'_>| {
            names.iter().map(|name| path(name, container.cgroup_path())).collect::<Vec<_>>()
        };
        reader.containers().iter().flat_map(of).filter_map(|path| File::open(path).ok()).collect()
    };
    let files: Vec<File> = open(cpu).into_iter().chain(open(memory)).collect();
    let mut text = vec![0; 64 << 10];
    ns_of(25, 1, || {
        for file in &files {
            let _ = file.read_at(&mut text, 0);
        }
    })
}

//! Which file, and whose: numbers that the next file has at once, subvolumes that share them, overlays, and
//! files that several processes write to. What is told is held against what the programs counted themselves.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Stdio};

use serde_json::Value;

use crate::cgroup::Cgroup;
use crate::frozen::Disk;
use crate::rig::{Agent, Folder, KillOnDrop, SOON, await_that, command, done, only, root, run, text, window};

/// Whether two numbers of bytes are as near as docs/accuracy.md promises.
fn close(have: f64, want: f64) -> bool {
    (have - want).abs() <= 0.02 * want
}

/// Something that waits until the capture watches, then writes, and says when it is done.
struct Writer {
    child: KillOnDrop,
    go: Option<ChildStdin>,
    done: PathBuf,
}

impl Writer {
    /// Python's words, in which `folder` is where it may write.
    fn new(cgroup: &Cgroup, folder: &Folder, name: &str, words: &str, arguments: &[&Path]) -> Writer {
        let done = folder.0.join(name);
        let code = format!(
            "import os, sys, mmap\nsys.stdin.readline()\n{words}\nopen({done:?}, 'w').write(open('/proc/self/io').read())\nsys.stdin.readline()"
        );
        let mut python = command("python3");
        python.arg("-c").arg(code).args(arguments).stdin(Stdio::piped());
        let mut child = cgroup.start(&mut python);
        let go = child.0.stdin.take();
        Writer { child, go, done }
    }

    fn pid(&self) -> u32 {
        self.child.0.id()
    }

    /// Lets it write to its end.
    fn finish(&mut self) {
        let _ = self.run();
    }

    /// Lets it write to its end. Returns what the kernel counted of its own: bytes of pages that it made dirty.
    fn run(&mut self) -> f64 {
        self.go.as_mut().unwrap().write_all(b"go\n").unwrap();
        await_that("a writer's end", SOON, || {
            let text = fs::read_to_string(&self.done).ok()?;
            let line = text.lines().find_map(|line| line.strip_prefix("write_bytes: "))?;
            line.parse().ok()
        })
    }
}

/// A capture of one device by its agent, while this is done.
struct Traced {
    agent: Agent,
    event: Value,
}

fn traced(work: impl FnOnce()) -> Traced {
    let agent = Agent::start(&only("iotracing", "every = \"1h\"\nfiles = 100"));
    let mut trigger = agent.onset(&["trigger", "iotracing", "--seconds", window()]);
    let mut trigger = trigger.stdout(Stdio::piped()).spawn().unwrap();
    let pid = agent.pid();
    await_that("all to be watched", SOON, || watches(pid).then_some(()));
    work();
    assert!(
        matches!(trigger.try_wait(), Ok(None)),
        "the load outlasted its capture: the machine is too slow now"
    );
    let output = trigger.wait_with_output().unwrap();
    assert!(output.status.success());
    let id = String::from_utf8(output.stdout).unwrap();
    let event = agent.event("the event", SOON, |event| event["tracer_id"] == id.trim());
    Traced { agent, event }
}

/// Whether a process's I/O programs are attached: what tells of long waits is the last of them.
fn watches(pid: u32) -> bool {
    let infos = fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap().flatten();
    let mut texts = infos.filter_map(|info| fs::read_to_string(info.path()).ok());
    texts.any(|text| text.contains("tp_name:\tsched_waking"))
}

impl Traced {
    /// What of one process's went to files that fit, in bytes on the disk.
    fn written(&self, fits: impl Fn(&Value, &Value) -> bool) -> f64 {
        let seconds = self.event["tracer_data"]["duration_ms"].as_f64().unwrap() / 1000.0;
        let rows = self.event["tracer_data"]["process_file_io_stats"].as_array().unwrap().iter();
        let files =
            rows.flat_map(|row| row["total_files"].as_array().unwrap().iter().map(move |file| (row, file)));
        let those = files.filter(|(row, file)| fits(row, file));
        those.map(|(_, file)| file["disk_write_bps"].as_f64().unwrap()).sum::<f64>() * seconds
    }

    /// What this process wrote to this path.
    fn of(&self, pid: u32, path: &Path) -> f64 {
        self.written(|row, file| row["pid"] == pid && file["path"] == path.to_str().unwrap())
    }

    fn leave(self) {
        assert_eq!(self.agent.leave(), Some(0));
    }
}

const MIB: f64 = 1_048_576.0;

#[test]
fn files_that_reuse_an_inode_number_keep_their_own_paths() {
    if !root("files whose numbers are used again") {
        return;
    }
    let (disk, folder) = (Disk::new(), Folder::new());
    // One file after the other, of two containers in turn, all with one inode number.
    let words = "import json\nname, kib, turn, turns = sys.argv[1], int(str(sys.argv[2])), sys.argv[3], sys.argv[4]\n\
        seen = set()\n\
        for number in range(6):\n\
        \x20   while not os.path.exists(f'{turn}/{number}'): pass\n\
        \x20   path = f'{name}/tmp{number}'\n\
        \x20   file = os.open(path, os.O_CREAT | os.O_WRONLY); seen.add(os.fstat(file).st_ino)\n\
        \x20   os.write(file, b'z' * kib * 1024); os.fsync(file); os.unlink(path); os.close(file)\n\
        \x20   open(f'{turns}/{number + int(sys.argv[5])}', 'w')\n\
        json.dump(sorted(seen), open(sys.argv[6], 'w'))";
    let mut writers = Vec::new();
    let cgroups = [Cgroup::new("one"), Cgroup::new("two")];
    let turns: Vec<PathBuf> = ["turns-a", "turns-b"].map(|name| folder.0.join(name)).into();
    for (at, name) in ["a", "b"].into_iter().enumerate() {
        fs::create_dir(disk.path().join(name)).unwrap();
        fs::create_dir(&turns[at]).unwrap();
        let kib = ["1024", "2048"][at];
        let arguments: [&Path; 6] = [
            &disk.path().join(name),
            Path::new(kib),
            &turns[at],
            &turns[1 - at],
            // The second one follows, and hands on to the first one's next.
            Path::new(["0", "1"][at]),
            &folder.0.join(format!("inodes-{name}")),
        ];
        writers.push(Writer::new(&cgroups[at], &folder, &format!("done-{name}"), words, &arguments));
    }
    fs::write(turns[0].join("0"), "").unwrap();
    let traced = traced(|| {
        let (one, two) = writers.split_at_mut(1);
        one[0].go.as_mut().unwrap().write_all(b"go\n").unwrap();
        two[0].finish();
        one[0].finish();
    });
    let inodes = ["a", "b"].map(|name| fs::read_to_string(folder.0.join(format!("inodes-{name}"))).unwrap());
    assert!(inodes[0] == inodes[1] && !inodes[0].contains(','), "all have one number: {inodes:?}");
    for (at, name) in ["a", "b"].into_iter().enumerate() {
        for number in 0..6 {
            let path = disk.path().join(name).join(format!("tmp{number}"));
            let have = traced.of(writers[at].pid(), &path);
            assert!(close(have, [MIB, 2.0 * MIB][at]), "{have} of {}: {:#}", path.display(), traced.event);
        }
        let other = disk.path().join(["b", "a"][at]);
        let wrong = traced.written(|row, file| {
            row["pid"] == writers[at].pid()
                && file["path"].as_str().is_some_and(|path| Path::new(path).starts_with(&other))
        });
        assert_eq!(wrong, 0.0, "{:#}", traced.event);
    }
    traced.leave();
}

#[test]
fn a_file_that_is_renamed_or_deleted_while_it_is_written_shows_its_latest_name() {
    if !root("a file that is renamed") {
        return;
    }
    let (disk, folder) = (Disk::new(), Folder::new());
    let cgroup = Cgroup::new("renames");
    // Half of it under each name; the second file has none at its end.
    let words = "for name, then in ((sys.argv[1], lambda: os.rename(sys.argv[1], sys.argv[2])), (sys.argv[3], lambda: os.unlink(sys.argv[3]))):\n\
        \x20   file = os.open(name, os.O_CREAT | os.O_WRONLY)\n\
        \x20   os.write(file, os.urandom(2 << 20)); os.fsync(file)\n\
        \x20   then()\n\
        \x20   for _ in range(2): os.write(file, os.urandom(1 << 20)); os.fsync(file)";
    let [before, after, gone] = ["app.log", "app.log.1", "temporary"].map(|name| disk.path().join(name));
    let mut writer = Writer::new(&cgroup, &folder, "done", words, &[&before, &after, &gone]);
    let traced = traced(|| writer.finish());
    let deleted = PathBuf::from(format!("{} (deleted)", gone.display()));
    for (path, want) in [(&after, 4.0 * MIB), (&deleted, 4.0 * MIB), (&before, 0.0), (&gone, 0.0)] {
        let have = traced.of(writer.pid(), path);
        assert!(close(have, want), "{have} of {}: {:#}", path.display(), traced.event);
    }
    traced.leave();
}

/// A btrfs on a loop device.
struct Btrfs(PathBuf, #[allow(dead_code)] Folder);

impl Btrfs {
    fn new() -> Btrfs {
        let folder = Folder::new();
        let (image, mount) = (folder.0.join("image"), folder.0.join("mount"));
        fs::create_dir(&mount).unwrap();
        fs::File::create(&image).unwrap().set_len(256 << 20).unwrap();
        done(command("mkfs.btrfs").arg("-q").arg(&image));
        done(command("mount").args(["-o", "loop"]).arg(&image).arg(&mount));
        Btrfs(mount, folder)
    }
}

impl Drop for Btrfs {
    fn drop(&mut self) {
        run(command("umount").arg(&self.0));
    }
}

/// Writes as many MiB as its second argument says to its first, through the cache.
const FILL: &str = "file = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)\n\
    for _ in range(int(sys.argv[2])): os.write(file, os.urandom(1 << 20))\n\
    os.fsync(file)";

#[test]
fn files_of_two_subvolumes_that_share_a_number_have_their_own_paths() {
    if !root("subvolumes") {
        return;
    }
    let (disk, folder) = (Btrfs::new(), Folder::new());
    let cgroups = [Cgroup::new("left"), Cgroup::new("right")];
    let paths = ["left", "right"].map(|name| {
        done(command("btrfs").args(["subvolume", "create"]).arg(disk.0.join(name)));
        let path = disk.0.join(name).join(format!("file-{name}"));
        fs::write(&path, "").unwrap();
        path
    });
    let inode = |path: &Path| fs::metadata(path).unwrap().ino();
    assert_eq!(inode(&paths[0]), inode(&paths[1]), "each subvolume counts for itself");
    let mut writers: Vec<Writer> = (0..2)
        .map(|at| {
            let mib = Path::new(["8", "16"][at]);
            Writer::new(&cgroups[at], &folder, &format!("done-{at}"), FILL, &[&paths[at], mib])
        })
        .collect();
    let traced = traced(|| writers.iter_mut().for_each(|writer| writer.finish()));
    for at in 0..2 {
        let (pid, want) = (writers[at].pid(), [8.0, 16.0][at] * MIB);
        let have = traced.of(pid, &paths[at]);
        assert!(close(have, want), "{have} of {}: {:#}", paths[at].display(), traced.event);
        assert_eq!(traced.of(pid, &paths[1 - at]), 0.0, "{:#}", traced.event);
    }
    traced.leave();
}

/// An overlay whose layers are on a disk.
struct Overlay(PathBuf);

impl Overlay {
    fn new(disk: &Disk, name: &str) -> Overlay {
        let folder = disk.path().join(name);
        for part in ["lower", "upper", "work", "merged"] {
            fs::create_dir_all(folder.join(part)).unwrap();
        }
        let layer = |part: &str| folder.join(part).display().to_string();
        let options =
            format!("lowerdir={},upperdir={},workdir={}", layer("lower"), layer("upper"), layer("work"));
        done(command("mount").args(["-t", "overlay", "overlay", "-o", &options]).arg(folder.join("merged")));
        Overlay(folder)
    }

    fn inside(&self, file: &str) -> PathBuf {
        self.0.join("merged").join(file)
    }

    fn upper(&self, file: &str) -> PathBuf {
        self.0.join("upper").join(file)
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        run(command("umount").arg(self.0.join("merged")));
    }
}

/// The same past the cache.
const DIRECT: &str = "file = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY | os.O_DIRECT)\n\
    block = mmap.mmap(-1, 1 << 20)\n\
    for _ in range(int(sys.argv[2])): os.write(file, block)\n\
    os.fsync(file)";

#[test]
fn writes_through_overlayfs_show_the_file_on_the_disk() {
    if !root("overlays") {
        return;
    }
    let (disk, folder) = (Disk::new(), Folder::new());
    let cgroups = [Cgroup::new("upper"), Cgroup::new("over")];
    let overlays = ["one", "two"].map(|name| Overlay::new(&disk, name));
    // The same path in both containers, and on the disk itself: through the cache, and past it.
    let mut writers: Vec<(usize, &str, f64, Writer)> = Vec::new();
    for (at, overlay) in overlays.iter().enumerate() {
        for (name, words, mib) in [("cached", FILL, 3 + at), ("direct", DIRECT, 5 + at)] {
            let (file, count) = (overlay.inside(name), mib.to_string());
            let arguments = [file.as_path(), Path::new(&count)];
            let writer = Writer::new(&cgroups[at], &folder, &format!("{name}-{at}"), words, &arguments);
            writers.push((at, name, mib as f64 * MIB, writer));
        }
    }
    let traced = traced(|| writers.iter_mut().for_each(|(_, _, _, writer)| writer.finish()));
    for (at, name, want, writer) in &writers {
        let have = traced.of(writer.pid(), &overlays[*at].upper(name));
        assert!(close(have, *want), "{have} of {name} {at}: {:#}", traced.event);
        let all = traced.written(|row, file| row["pid"] == writer.pid() && file.get("inode").is_some());
        assert!(close(all, *want), "{name} {at}, nothing under another name: {:#}", traced.event);
    }
    traced.leave();
}

/// Writes each second page of a file, from its third argument on, from its own offset.
const ALTERNATE: &str = "file = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)\n\
    for page in range(int(sys.argv[2]), 4096, 2): os.pwrite(file, os.urandom(4096), page * 4096)\n\
    os.fsync(file) if sys.argv[2] == '1' else None";

#[test]
fn bytes_of_a_shared_file_count_for_the_process_that_dirtied_each_page() {
    if !root("a shared file") {
        return;
    }
    let (disk, folder) = (Disk::new(), Folder::new());
    let cgroups = [Cgroup::new("even"), Cgroup::new("odd")];
    let path = disk.path().join("shared");
    let mut writers: Vec<Writer> = (0..2)
        .map(|at| {
            let first = Path::new(["0", "1"][at]);
            Writer::new(&cgroups[at], &folder, &format!("done-{at}"), ALTERNATE, &[&path, first])
        })
        .collect();
    let mut counted = Vec::new();
    let traced = traced(|| counted.extend(writers.iter_mut().map(Writer::run)));
    for at in 0..2 {
        let have = traced.written(|row, file| {
            row["pid"] == writers[at].pid()
                && row["container_id"] == cgroups[at].id.as_str()
                && file["path"] == path.to_str().unwrap()
                && file["shared"] == false
        });
        assert!(close(have, 8.0 * MIB), "{have}: {:#}", traced.event);
        // The kernel's own count, which holds a few pages of folders and of its end.
        assert!(
            close(have, counted[at]),
            "{have}, and /proc/PID/io says {}: {:#}",
            counted[at],
            traced.event
        );
    }
    traced.leave();
}

#[test]
fn two_writers_of_one_large_folio_are_counted_apart() {
    if !root("a shared file in large folios") {
        return;
    }
    let folder = Folder::new();
    let (image, mount) = (folder.0.join("image"), folder.0.join("mount"));
    fs::create_dir(&mount).unwrap();
    fs::File::create(&image).unwrap().set_len(512 << 20).unwrap();
    done(command("mkfs.xfs").arg("-q").arg(&image));
    done(command("mount").args(["-o", "loop"]).arg(&image).arg(&mount));
    struct Unmount(PathBuf);
    impl Drop for Unmount {
        fn drop(&mut self) {
            run(command("umount").arg(&self.0));
        }
    }
    let mounted = Unmount(mount);
    let path = mounted.0.join("shared");
    // In the cache it lies in folios of many pages, all clean.
    done(
        command("dd")
            .args(["if=/dev/urandom", "bs=1M", "count=16", "conv=fsync", "status=none"])
            .arg(format!("of={}", path.display())),
    );
    let words = "file = os.open(sys.argv[1], os.O_WRONLY)\n\
        for page in range(int(sys.argv[2]), 4096, 64): os.pwrite(file, os.urandom(4096), page * 4096)\n\
        os.fsync(file) if sys.argv[2] == '1' else None";
    let cgroups = [Cgroup::new("first"), Cgroup::new("second")];
    let mut writers: Vec<Writer> = (0..2)
        .map(|at| {
            // The second begins where the first was, and ends where it was not.
            let words = if at == 1 {
                words.replace("range(int(sys.argv[2]), 4096", "range(1, 4096")
            } else {
                words.replace("4096, 64)", "2048, 64)")
            };
            let first = Path::new(["0", "1"][at]);
            Writer::new(&cgroups[at], &folder, &format!("done-{at}"), &words, &[&path, first])
        })
        .collect();
    let traced = traced(|| writers.iter_mut().for_each(|writer| writer.finish()));
    let of = |shared: bool, pid: Option<u32>| {
        traced.written(|row, file| {
            file["path"] == path.to_str().unwrap()
                && file["shared"] == shared
                && pid.is_none_or(|pid| row["pid"] == pid)
        })
    };
    let all = of(true, None) + of(false, None);
    assert!(close(all, (32.0 + 64.0) * 4096.0), "{all}: {:#}", traced.event);
    // xfs tells of each write, also of those to pages that lie in a dirty folio.
    for (at, pages) in [(0, 32.0), (1, 64.0)] {
        let have = of(false, Some(writers[at].pid()));
        assert!(close(have, pages * 4096.0), "{have}: {:#}", traced.event);
    }
    traced.leave();
    drop(writers);
}

/// A page in each of as many places as its second argument says, from 256 KiB on.
const SPARSE: &str = "file = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)\n\
    for place in range(1, int(sys.argv[2]) + 1): os.pwrite(file, os.urandom(4096), place << 18)\n\
    os.fsync(file)";

#[test]
fn rows_of_a_shared_file_beyond_the_map_say_that_its_writers_are_unknown() {
    if !root("a shared file that is too large") {
        return;
    }
    let (disk, folder) = (Disk::of_size(256 << 20), Folder::new());
    let cgroups = [Cgroup::new("first"), Cgroup::new("second")];
    let path = disk.path().join("sparse");
    let first = "file = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY); os.write(file, os.urandom(4096))";
    let places = Path::new("10000");
    let mut writers = [
        Writer::new(&cgroups[0], &folder, "done-first", first, &[&path]),
        Writer::new(&cgroups[1], &folder, "done-second", SPARSE, &[&path, places]),
    ];
    let traced = traced(|| writers.iter_mut().for_each(|writer| writer.finish()));
    let of = |shared: bool| {
        traced.written(|row, file| {
            row["pid"] == writers[1].pid()
                && file["path"] == path.to_str().unwrap()
                && file["shared"] == shared
        })
    };
    let unknown = traced.written(|_, file| file["path"] == path.to_str().unwrap() && file["shared"] == true);
    // A place is noted with those around it, and there is room for 8192.
    assert!(of(false) <= 8192.0 * 4096.0 * 1.02, "{:#}", traced.event);
    assert!(unknown >= (10_000.0 - 8192.0) * 4096.0 * 0.98, "{unknown}: {:#}", traced.event);
    assert!(close(of(false) + unknown, 10_001.0 * 4096.0), "{:#}", traced.event);
    let named =
        traced.written(|row, file| row["pid"] == writers[0].pid() && file["path"] == path.to_str().unwrap());
    assert_eq!(named, 0.0, "its only page is one of those that cannot be told: {:#}", traced.event);
    traced.leave();
}

#[test]
fn bytes_of_each_file_agree_with_fio() {
    if !root("fio's count") {
        return;
    }
    let disk = Disk::new();
    let jobs = [
        ("buffered", "--rw=write --end_fsync=1"),
        ("random", "--rw=randwrite --direct=1 --ioengine=libaio --iodepth=8"),
        ("mapped", "--rw=write --ioengine=mmap --end_fsync=1"),
    ];
    let cgroup = Cgroup::new("fio");
    // Before it maps a file, fio fills it.
    let mapped = disk.path().join("mapped");
    done(
        command("dd")
            .args(["if=/dev/urandom", "bs=1M", "count=6", "conv=fsync", "status=none"])
            .arg(format!("of={}", mapped.display())),
    );
    let mut told = Vec::new();
    let traced = traced(|| {
        for (name, way) in jobs {
            let mut fio = command("fio");
            fio.args(["--thread", "--output-format=json", "--bs=16k", "--size=6m", "--name", name])
                .arg(format!("--filename={}", disk.path().join(name).display()))
                .args(way.split(' '))
                .stdout(Stdio::piped());
            cgroup.hold(&mut fio);
            let child = fio.spawn().unwrap();
            let pid = child.id();
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success());
            let said: Value = serde_json::from_slice(&output.stdout).unwrap();
            told.push((name, pid, said["jobs"][0]["write"]["io_bytes"].as_f64().unwrap()));
        }
    });
    for (name, pid, want) in told {
        let have = traced.of(pid, &disk.path().join(name));
        assert!(want > 0.0 && close(have, want), "{name}: {have}, fio says {want}: {:#}", traced.event);
    }
    traced.leave();
}

#[test]
fn a_multipath_nvme_is_reported_by_its_head_device() {
    if !root("an nvme of several paths") {
        return;
    }
    let folder = Folder::new();
    let proc = folder.0.join("proc");
    fs::create_dir(&proc).unwrap();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let name = entry.file_name();
        if name != "diskstats" && !name.as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            std::os::unix::fs::symlink(entry.path(), proc.join(name)).unwrap();
        }
    }
    let began = std::time::Instant::now();
    // As kernels before 6.1 have it: two thirds of 3 GiB a second on one path, the rest on the other.
    let write = move |proc: &Path| {
        let ms = began.elapsed().as_millis() as u64 + 5000;
        let path = |name: &str, mib: u64| {
            format!(
                "   0       0 {name} {ms} 0 {} {} 0 0 0 0 1 {ms} {} 0 0 0 0 0 0\n",
                mib * 2048 * ms / 1000,
                2 * ms,
                2 * ms
            )
        };
        let head = " 259       1 nvme0n1 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n";
        let text = path("nvme0c0n1", 2048) + &path("nvme0c1n1", 1024) + head;
        // In place, for the agent keeps it open; each is as long as the one before, or longer.
        let mut file = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(proc.join("diskstats"))
            .unwrap();
        file.write_all(text.as_bytes()).unwrap();
    };
    write(&proc);
    let at = proc.clone();
    let keys = "every = \"1s\"\ncapture = \"1s\"\nsustained_samples = 0";
    let agent = Agent::start(&format!("[paths]\nproc = \"{}\"\n{}", proc.display(), only("iotracing", keys)));
    let event = await_that("an event of the nvme", SOON, || {
        write(&at);
        agent.events().into_iter().next()
    });
    let snap = &event["tracer_data"]["reason_snapshot"];
    assert_eq!(text(snap, "/device"), "nvme0n1", "{event:#}");
    assert_eq!((&snap["major_num"], &snap["minor_num"], &snap["paths"]), (&259.into(), &1.into(), &2.into()));
    // What a read moves on average tells of both paths together, however late either side came to look.
    let status = &snap["iostatus"];
    let each = status["read_bps"].as_f64().unwrap() / status["read_iops"].as_f64().unwrap() / MIB;
    assert!(close(each, 1.536), "{each} MiB a read: {event:#}");
    let await_ms = snap["iostatus"]["read_await"].as_f64().unwrap();
    assert!((await_ms - 2.0).abs() < 0.1, "{event:#}");
    let device = &event["tracer_data"]["device_io"][0];
    assert_eq!(
        (text(device, "/device"), &device["major"], &device["minor"]),
        ("nvme0n1", &259.into(), &1.into())
    );
    assert!(device["read_bps"].as_f64() > Some(0.0), "what its paths moved: {event:#}");
    assert_eq!(agent.leave(), Some(0));
}

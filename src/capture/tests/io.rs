//! Reads and writes of real files by fio, on filesystems of our own on loop devices.

use super::*;
use crate::capture_data::{Device, DeviceIo, DiskIo, FileIo, IoObject};

/// A filesystem on a loop device, which goes away with the test.
struct Disk {
    folder: PathBuf,
    device: Device,
}

impl Disk {
    fn new(name: &str, mkfs: &str, size: u64) -> Disk {
        use std::os::unix::fs::MetadataExt as _;
        let folder = std::env::temp_dir().join(format!("onset-io-{name}-{}", std::process::id()));
        let (image, mount) = (folder.join("image"), folder.join("mount"));
        fs::create_dir_all(&mount).expect("a directory");
        fs::File::create(&image).and_then(|file| file.set_len(size)).expect("an image");
        run(mkfs, &["-q".as_ref(), &image]);
        run("mount", &["-o".as_ref(), "loop".as_ref(), &image, &mount]);
        let dev = fs::metadata(&mount).expect("it is mounted").dev();
        let (major, minor) = (libc::major(dev), libc::minor(dev));
        Disk { folder, device: Device { major, minor } }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.join("mount").join(file)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let began = Instant::now();
        let unmounted =
            |mount: &Path| Command::new("umount").arg(mount).status().is_ok_and(|done| done.success());
        while !unmounted(&self.path("")) && began.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn run(program: &str, args: &[&Path]) {
    assert!(Command::new(program).args(args).status().expect(program).success(), "{program} {args:?}");
}

/// Tracepoints that this process's programs are attached to: some only while something is watched.
fn attached() -> usize {
    let infos = fs::read_dir("/proc/self/fdinfo").expect("procfs").flatten();
    let texts = infos.filter_map(|info| fs::read_to_string(info.path()).ok());
    texts.filter(|text| text.contains("link_type:\traw_tracepoint")).count()
}

/// Whether all is watched: what tells of long waits is attached last.
fn watches() -> bool {
    let infos = fs::read_dir("/proc/self/fdinfo").expect("procfs").flatten();
    let mut texts = infos.filter_map(|info| fs::read_to_string(info.path()).ok());
    texts.any(|text| text.contains("tp_name:\tsched_waking"))
}

const MIB: u64 = 1 << 20;

/// Runs one job of fio to its end.
fn fio(disk: &Disk, name: &str, options: &str) -> Child {
    Command::new("fio")
        .args(["--thread", "--minimal", "--bs=64k", "--size=32m", "--name", name])
        .arg(format!("--filename={}", disk.path(name).display()))
        .args(options.split(' '))
        .stdout(Stdio::null())
        .spawn()
        .expect("fio is installed")
}

fn traced(
    captures: &mut Captures,
    scope: Scope,
    lasting: Duration,
    work: impl FnOnce(),
) -> (Capture<'static>, DiskIo<'static>) {
    let request = Request { kind: CaptureKind::Io, scope, lasting };
    captures.start(Ticket(1), request, &|_| ()).expect("nothing else runs");
    until("it to be attached", || watches().then_some(()));
    work();
    let (_, capture) = answer(captures);
    match capture.data {
        CaptureData::Io(io) => (capture, io),
        other => panic!("{other:?}"),
    }
}

fn close(have: u64, want: u64) -> bool {
    have.abs_diff(want) <= want / 50
}

fn file<'d>(device: &'d DeviceIo<'d>, path: &Path) -> (u32, &'d FileIo<'d>) {
    let is = |file: &FileIo<'_>| matches!(&file.target, IoObject::File(_, _, Some(name)) if Path::new(name) == path);
    let all: Vec<_> = device
        .processes
        .iter()
        .flat_map(|process| process.files.iter().map(|file| (process.pid, file)))
        .filter(|(_, file)| is(file))
        .collect();
    assert_eq!(all.len(), 1, "{} in {device:#?}", path.display());
    all[0]
}

fn each_way_of_writing_is_told_of_its_process_and_file(mkfs: &str) {
    let _alone = alone();
    let (disk, other) = (Disk::new("one", mkfs, 512 * MIB), Disk::new("two", mkfs, 512 * MIB));
    let mut captures = load(false);
    // Before it maps a file, fio fills it.
    let fill = "--rw=write --ioengine=mmap --create_only=1";
    assert!(fio(&disk, "mapped", fill).wait().expect("a child").success());
    run("sync", &["-f".as_ref(), &disk.path("")]);
    let ways = [
        ("buffered", "--rw=write --ioengine=psync --end_fsync=1"),
        ("direct", "--rw=write --ioengine=psync --direct=1"),
        ("mapped", "--rw=write --ioengine=mmap --end_fsync=1"),
        ("libaio", "--rw=randwrite --ioengine=libaio --iodepth=16 --direct=1"),
        ("uring", "--rw=randwrite --ioengine=io_uring --iodepth=16 --direct=1"),
    ];
    let before = attached();
    let mut pids = Vec::new();
    let (capture, io) = traced(&mut captures, Scope::Device(disk.device), Duration::from_secs(8), || {
        let mut children: Vec<Child> = ways.iter().map(|(name, way)| fio(&disk, name, way)).collect();
        let mut noise = fio(&other, "noise", "--rw=write --ioengine=psync --direct=1");
        for child in children.iter_mut().chain([&mut noise]) {
            assert!(child.wait().expect("a child").success());
        }
        pids = children.iter().map(Child::id).collect();
        run("sync", &["-f".as_ref(), &disk.path("")]);
    });
    assert_eq!(capture.lost, 0);
    let device = &io.devices[0];
    assert_eq!(device.device, disk.device);
    for ((name, _), pid) in ways.iter().zip(&pids) {
        let (whose, file) = file(device, &disk.path(name));
        assert_eq!(whose, *pid, "{name}");
        assert!(close(file.write_bytes, 32 * MIB), "{name}: {file:#?}");
        assert_eq!(
            (file.direct, file.dirtied_earlier),
            (!["buffered", "mapped"].contains(name), false),
            "{name}"
        );
        assert!(file.whole.average > Duration::ZERO && file.whole.max >= file.whole.average, "{file:#?}");
        assert!(file.device.max <= file.whole.max && file.device.average > Duration::ZERO, "{file:#?}");
    }
    let buffered = file(device, &disk.path("buffered")).1.fs_write_bytes;
    assert_eq!(buffered, (mkfs == "mkfs.ext4").then_some(32 * MIB), "to the byte, where it is told");
    let rows: u64 =
        device.processes.iter().flat_map(|process| &process.files).map(|file| file.write_bytes).sum();
    let whole = device.write_bytes.expect("diskstats has it");
    assert!(close(rows, whole), "rows {rows}, diskstats {whole}: {device:#?}");
    assert!(io.devices.iter().all(|device| device.device != other.device), "the other disk's are absent");
    until("the end of its thread", || (threads("onset-io") == 0).then_some(()));
    assert_eq!(attached(), before, "all is detached");
}

#[test]
fn tasks_that_wait_for_long_are_told_with_their_stacks() {
    if !root() {
        return;
    }
    let _alone = alone();
    let disk = Disk::new("stall", "mkfs.ext4", 64 * MIB);
    let frozen = |how: &str| run("fsfreeze", &[how.as_ref(), &disk.path("")]);
    let file = disk.path("file");
    let mut captures = load(false);
    let (_, io) = traced(&mut captures, Scope::Device(disk.device), Duration::from_secs(3), || {
        // Who waits must use the device, or it may as well wait for another.
        let words = format!(
            "dd if=/dev/zero of={0} bs=64k count=1 oflag=direct status=none; read go; echo x >> {0}; sync {0}",
            file.display()
        );
        let mut child =
            Command::new("bash").args(["-c", &words]).stdin(Stdio::piped()).spawn().expect("bash");
        until("the file", || fs::metadata(&file).is_ok_and(|file| file.len() == 64 << 10).then_some(()));
        frozen("-f");
        drop(child.stdin.take());
        until("the writer to be stuck", || {
            fs::read_to_string(format!("/proc/{}/stat", child.id())).ok()?.contains(") D ").then_some(())
        });
        std::thread::sleep(Duration::from_millis(300));
        frozen("-u");
        assert!(child.wait().expect("a child").success());
    });
    let stall = io.stalls.iter().find(|stall| stall.comm == "bash").expect("the writer");
    assert!((300..2000).contains(&stall.blocked.as_millis()), "{stall:?}");
    let functions = stall.stack.join(" ");
    assert!(functions.contains("percpu") || functions.contains("sb_start_write"), "{functions}");
    assert!(io.stalls.is_sorted_by(|one, two| one.blocked >= two.blocked));
}

#[test]
fn the_longest_names_and_the_deepest_paths_are_told_whole() {
    if !root() {
        return;
    }
    let _alone = alone();
    let disk = Disk::new("deep", "mkfs.ext4", 64 * MIB);
    // As long as the kernel lets a program name at all, with its mount point: 4095 bytes.
    let mut long = disk.path("");
    while long.as_os_str().len() + 256 < 4095 {
        long.push("n".repeat(255));
    }
    let mut many = disk.path("");
    (0..500).for_each(|level| many.push(format!("d{level}")));
    let files = [long, many].map(|folder| {
        fs::create_dir_all(&folder).expect("folders");
        folder.join("f")
    });
    let mut captures = load(false);
    let (_, io) = traced(&mut captures, Scope::Device(disk.device), Duration::from_secs(2), || {
        for path in &files {
            fs::write(path, vec![7; 64 << 10]).expect("a file");
        }
        run("sync", &["-f".as_ref(), &disk.path("")]);
    });
    for path in &files {
        let (pid, file) = file(&io.devices[0], path);
        assert_eq!((pid, file.write_bytes), (std::process::id(), 64 << 10));
    }
}

#[test]
fn what_was_dirty_before_is_marked_as_nobodys() {
    if !root() {
        return;
    }
    let _alone = alone();
    let disk = Disk::new("earlier", "mkfs.ext4", 64 * MIB);
    let path = disk.path("file");
    fs::write(&path, vec![7; 1 << 20]).expect("a file");
    let mut captures = load(false);
    let (_, io) = traced(&mut captures, Scope::Device(disk.device), Duration::from_secs(2), || {
        run("sync", &["-f".as_ref(), &disk.path("")]);
    });
    let (_, file) = file(&io.devices[0], &path);
    assert_eq!((file.write_bytes, file.dirtied_earlier, file.fs_write_bytes), (1 << 20, true, None));
}

#[test]
fn captures_that_overlap_each_have_their_own_disks_and_time() {
    if !root() {
        return;
    }
    let _alone = alone();
    let disks = [Disk::new("left", "mkfs.ext4", 64 * MIB), Disk::new("right", "mkfs.ext4", 64 * MIB)];
    let mut captures = load(false);
    let begin = |captures: &mut Captures, ticket, disk: &Disk, ms| {
        let scope = Scope::Device(disk.device);
        let request = Request { kind: CaptureKind::Io, scope, lasting: Duration::from_millis(ms) };
        captures.start(Ticket(ticket), request, &|_| ())
    };
    begin(&mut captures, 1, &disks[0], 1500).expect("the first");
    begin(&mut captures, 2, &disks[1], 3000).expect("another disk's");
    assert_eq!(begin(&mut captures, 3, &disks[0], 1500), Err(Refusal::Busy), "the same disk's");
    let write = |disk: &Disk, name: &str| {
        fs::write(disk.path(name), vec![7; 1 << 20]).expect("a file");
        run("sync", &["-f".as_ref(), &disk.path("")]);
    };
    until("the programs to be attached", || watches().then_some(()));
    // When the second disk is watched as well, nothing shows.
    std::thread::sleep(Duration::from_millis(500));
    disks.iter().for_each(|disk| write(disk, "early"));
    let mut seen = Vec::new();
    for late in [true, false] {
        let (ticket, capture) = answer(&mut captures);
        let CaptureData::Io(io) = capture.data else { panic!("I/O was asked for") };
        if late {
            disks.iter().for_each(|disk| write(disk, "late"));
        }
        seen.push((ticket, io));
    }
    let names = |io: &DiskIo| {
        let device = &io.devices[0];
        let files = device.processes.iter().flat_map(|process| &process.files);
        let name = |file: &FileIo<'_>| match &file.target {
            IoObject::File(_, _, Some(path)) => Path::new(&**path).file_name().map(|name| name.to_owned()),
            _ => None,
        };
        let mut names: Vec<_> = files.filter_map(name).collect();
        names.sort();
        (device.device, names)
    };
    let early = || std::ffi::OsString::from("early");
    assert_eq!((seen[0].0, names(&seen[0].1)), (Ticket(1), (disks[0].device, vec![early()])));
    let both = vec![early(), "late".into()];
    assert_eq!((seen[1].0, names(&seen[1].1)), (Ticket(2), (disks[1].device, both)));
}

#[test]
fn on_ext4_each_way_of_writing_is_told_of_its_process_and_file() {
    if root() {
        each_way_of_writing_is_told_of_its_process_and_file("mkfs.ext4");
    }
}

#[test]
fn on_xfs_each_way_of_writing_is_told_of_its_process_and_file() {
    if root() {
        each_way_of_writing_is_told_of_its_process_and_file("mkfs.xfs");
    }
}

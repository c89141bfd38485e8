//! Reads and writes of real files by fio, on filesystems of our own on loop devices.

use super::*;
use crate::evidence::{Device, DeviceIo, DiskIo, FileIo, Target};

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

/// Links of this process's programs: there are some only while something is watched.
fn attached() -> usize {
    open("anon_inode:bpf_link") + open("anon_inode:bpf-raw-tracepoint")
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
) -> (Capture, DiskIo) {
    let request = Request { kind: Kind::Io, scope, lasting };
    let before = attached();
    captures.start(Ticket(1), request, Paths::default).expect("nothing else runs");
    until("it to be attached", || (attached() >= before + HOOKS).then_some(()));
    work();
    let (_, capture) = answer(captures);
    match capture.seen.clone() {
        Seen::Io(io) => (capture, io),
        other => panic!("{other:?}"),
    }
}

/// Hooks on a kernel that has ext4.
const HOOKS: usize = 8;

fn close(have: u64, want: u64) -> bool {
    have.abs_diff(want) <= want / 50
}

fn file<'d>(device: &'d DeviceIo, path: &Path) -> (u32, &'d FileIo) {
    let is =
        |file: &FileIo| matches!(&file.target, Target::File(_, _, Some(name)) if Path::new(&**name) == path);
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
        assert!(file.whole.average > Duration::ZERO && file.whole.most >= file.whole.average, "{file:#?}");
        assert!(file.device.most <= file.whole.most && file.device.average > Duration::ZERO, "{file:#?}");
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
    let stall = io.stalls.iter().find(|stall| &*stall.comm == "bash").expect("the writer");
    assert!((300..2000).contains(&stall.blocked.as_millis()), "{stall:?}");
    let functions = stall.stack.join(" ");
    assert!(functions.contains("percpu") || functions.contains("sb_start_write"), "{functions}");
    assert!(io.stalls.is_sorted_by(|one, two| one.blocked >= two.blocked));
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

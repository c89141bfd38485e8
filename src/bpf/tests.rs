//! Pure parts on made-up bytes; rings and iterators on this kernel, which takes root.

#![allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]

use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::fuzz::Portions;
use super::tasks::{each_record, some_records};
use super::*;
use crate::host::Key;
use crate::layout::{oom::Kill, reclaim::Reclaim};
use crate::symbol::{Image, Layout, UserFrame};

mod samples;

/// Whether this test can run. Says so loudly where it cannot.
pub(crate) fn root() -> bool {
    // SAFETY: takes nothing and cannot fail.
    let root = unsafe { libc::geteuid() } == 0;
    if !root {
        eprintln!("SKIPPED: BPF programs need root");
    }
    root
}

/// Tests that count samples or threads do not run beside each other.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn a_container_key_survives_the_round_trip_through_a_bpf_map() {
    for key in [
        Key { slot: 0, generation: 0 },
        Key { slot: u16::MAX, generation: u32::MAX },
        Key { slot: 7, generation: 1 },
    ] {
        assert_eq!(Key::from_bits(key.to_bits()), Some(key));
        assert_ne!(key.to_bits(), 0);
    }
    assert_eq!(Key::from_bits(0), None);
    assert_eq!(Key::from_bits(42), None);
}

#[test]
fn iterator_records_are_parsed_whole_at_any_read_boundary() {
    let bytes: Vec<u8> = (0..120).collect();
    for room in [8, 9, 13, 64, 256] {
        let mut seen = Vec::new();
        each_record(&mut Portions(&bytes, 0), &mut vec![0; room], |record: &[u8; 8]| seen.extend(*record))
            .expect("15 records");
        assert_eq!(seen, bytes, "room for {room}");
    }
}

#[test]
fn a_long_list_is_read_in_parts_of_which_none_is_longer_than_was_asked_for() {
    let bytes: Vec<u8> = (0..20_000_u32 * 2).flat_map(u32::to_ne_bytes).collect();
    for (room, most) in [(8 << 10, 1024), (32 << 10, 1024), (13, 7), (64, 20_000), (64, 30_000), (9, 1)] {
        let (mut list, mut buffer, mut held) = (Portions(&bytes, 0), vec![0; room], 0);
        let (mut seen, mut parts) = (Vec::new(), 0);
        loop {
            let mut part = 0;
            let whole = some_records(&mut list, &mut buffer, &mut held, most, |record: &[u8; 8]| {
                part += 1;
                seen.extend(*record);
            })
            .expect("20,000 records");
            assert!(part == most || whole && part < most, "{part} of {most}");
            parts += 1;
            if whole {
                break;
            }
        }
        assert_eq!((seen.len(), parts), (bytes.len(), 20_000 / most + 1), "{room}, {most}");
        assert!(seen == bytes, "in order: {room}, {most}");
    }
}

#[test]
fn an_iterator_that_ends_within_a_record_is_an_error() {
    let mut count = 0;
    let result = each_record(&mut Portions(&[0; 20], 0), &mut [0; 64], |_: &[u8; 8]| count += 1);
    assert_eq!(result.expect_err("4 bytes too few").kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(count, 2);
}

fn sent(kernel_bytes: u16, user_bytes: u16, tail: &[u8]) -> Vec<u8> {
    use crate::layout::stacks as layout;
    let record = layout::Stack {
        hash: 9,
        image: 5,
        layout: layout::Layout { start_code: 0x1000, end_code: 0x2000, start_stack: 0x7ffc_0000_0010 },
        tgid: 77,
        kernel_bytes,
        user_bytes,
        comm: *b"worker\x1b\0garbage!",
        execs: 1,
        unused: 0,
    };
    [&record.bytes()[..], tail].concat()
}

#[test]
fn a_stack_sample_is_parsed_as_the_bpf_program_lays_it_out() {
    let mut frames = 0xffff_ffff_8100_0000_u64.to_ne_bytes().to_vec();
    frames.extend(2_u32.to_ne_bytes());
    frames.extend([0; 20]);
    frames.extend(0x40_1000_u64.to_ne_bytes());
    let stack = StackRecord::parse(&sent(8, 32, &frames)).expect("a whole record");
    let image = Image { pid: 77, id: 5 };
    assert_eq!((stack.hash, stack.image, &*stack.comm, stack.execs), (9, image, "worker?", true));
    let layout = Layout { start_code: 0x1000, end_code: 0x2000, start_stack: 0x7ffc_0000_0010 };
    assert_eq!(stack.layout, layout);
    assert_eq!(*stack.kernel, [0xffff_ffff_8100_0000]);
    assert_eq!(*stack.user, [UserFrame::Address(0x40_1000)]);
    // The kernel rounds a record up: what comes after is not its own.
    frames.extend([0xff; 7]);
    assert_eq!(StackRecord::parse(&sent(8, 32, &frames)), Some(stack));
}

#[test]
fn a_stack_sample_that_claims_more_frames_than_it_has_is_refused() {
    let whole = sent(8, 32, &[0; 40]);
    for len in 0..whole.len() {
        assert_eq!(StackRecord::parse(&whole[..len]), None, "{len} bytes");
    }
    assert_eq!(StackRecord::parse(&sent(u16::MAX, u16::MAX, &[0; 40])), None);
}

#[test]
fn a_kernel_without_btf_gives_an_error_with_the_remedy() {
    let error = btf(Path::new("/nonexistent")).expect_err("no such kernel");
    assert_eq!(error.to_string(), "kernel has no BTF (CONFIG_DEBUG_INFO_BTF); see onset doctor");
}

#[test]
fn libbpf_messages_go_into_the_error_and_not_to_stderr() {
    if !root() {
        return;
    }
    let object = b"this is no ELF file";
    let error = super::error::attempt("a broken object", || {
        libbpf_rs::ObjectBuilder::default().open_memory(object).map(drop)
    })
    .expect_err("it is no ELF file");
    let text = error.to_string();
    assert!(text.contains("a broken object") && text.contains("ELF"), "{text}");
}

#[test]
fn a_drain_that_spends_its_budget_reports_more_records() {
    if !root() {
        return;
    }
    let _alone = alone();
    let followed = Followed::create(16).expect("a map");
    let site = Site { sys: Path::new("/sys"), followed: &followed, unified: false, cpus: &[0, 1] };
    let mut stacks = Stacks::by_clock(&site, &mut Meter::default()).expect("this kernel has BTF");
    let mut armed = stacks.arm().expect("armed");
    armed.aim(true, []).expect("aimed");
    until_the_next(&mut armed);
    let began = Instant::now();
    let mut busy = 0_u64;
    let mut portions = Vec::new();
    // This thread itself has several stacks, in the kernel and out of it.
    while !portions.ends_with(&[(1, Drained::More), (1, Drained::More)]) {
        assert!(began.elapsed() < Duration::from_secs(30), "{portions:?}");
        for _ in 0..1000 {
            busy = busy.wrapping_add(std::fs::read("/proc/stat").expect("procfs").len() as u64);
        }
        for _ in 0..2 {
            let mut count = 0;
            let left = armed.stacks(1, |_| count += 1);
            portions.push((count, left));
        }
    }
    assert_eq!(armed.stacks(100_000, |_| {}), Drained::Empty);
}

/// A turn that nothing ends but the next one.
fn until_the_next(armed: &mut Armed<'_>) -> Duration {
    armed.turn(crate::sys::monotonic(), None, Duration::from_secs(1 << 30)).expect("a turn")
}

#[test]
fn a_hook_is_detached_when_dropped_and_a_missing_one_is_an_error() {
    if !root() {
        return;
    }
    let _alone = alone();
    let followed = Followed::create(16).expect("a map");
    let site = Site { sys: Path::new("/sys"), followed: &followed, unified: false, cpus: &[] };
    let links = || {
        let files = std::fs::read_dir("/proc/self/fd").expect("procfs").flatten();
        let to = files.filter_map(|file| std::fs::read_link(file.path()).ok());
        to.filter(|to| to.as_os_str() == "anon_inode:bpf_link").count()
    };
    let before = links();
    let mut meter = Meter::default();
    for _ in 0..2 {
        let mut hook =
            Hook::attach("oom", &site, vec![("page_bytes", 4096)], &mut meter).expect("this kernel has BTF");
        assert_eq!(links(), before + 2, "of its two programs");
        assert_eq!((hook.drain(|_| {}), hook.lost()), (Drained::Empty, 0));
    }
    assert_eq!(links(), before);
    let mut programs = Vec::new();
    meter.read(&mut |name, _, _| programs.push(name.to_owned()));
    assert_eq!(programs, ["oom"], "once, though it was loaded twice");
    let error = Hook::attach("none", &site, Vec::new(), &mut meter).err().expect("there is none");
    assert!(error.to_string().contains("bpf/none.bpf.c is missing"), "{error}");
}

/// A cgroup with so little memory that whoever takes more is killed; gone when the test is.
struct Small(std::path::PathBuf);

impl Small {
    fn new() -> Small {
        let v1 = Path::new("/sys/fs/cgroup/memory");
        let (root, limit) = if v1.is_dir() {
            (v1, "memory.limit_in_bytes")
        } else {
            (Path::new("/sys/fs/cgroup"), "memory.max")
        };
        let folder = root.join("small");
        let _ = std::fs::remove_dir(&folder);
        std::fs::create_dir(&folder).expect("a cgroup");
        std::fs::write(folder.join(limit), "16777216").expect("a limit");
        Small(folder)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn an_oom_kill_reaches_the_ring_with_its_victim_and_cgroup() {
    if !root() {
        return;
    }
    let _alone = alone();
    let followed = Followed::create(16).expect("a map");
    let site = Site { sys: Path::new("/sys"), followed: &followed, unified: false, cpus: &[] };
    let mut hook = Hook::attach("oom", &site, vec![("page_bytes", 4096)], &mut Meter::default())
        .expect("this kernel has BTF");
    let small = Small::new();
    let greedy = format!("echo $$ > {}/cgroup.procs && exec tail /dev/zero", small.0.display());
    let mut child = std::process::Command::new("sh").args(["-c", &greedy]).spawn().expect("sh");
    child.wait().expect("it is killed");
    let mut records = Vec::new();
    hook.drain(|record| records.push(record.to_vec()));
    let kills = records.iter().map(|record| (record, Kill::read(record).expect("a whole record")));
    let own: Vec<_> = kills.filter(|(_, (kill, _))| kill.victim_pid == child.id()).collect();
    let [(record, (kill, names))] = own[..] else { panic!("{} records tell of it", own.len()) };
    crate::fuzz::record::note("oom_kill", &[record]);
    assert_eq!((&kill.victim_comm[..5], &names[..6]), (&b"tail\0"[..], &b"small\0"[..]));
}

#[test]
fn a_hooks_threshold_filters_in_the_kernel() {
    if !root() {
        return;
    }
    let _alone = alone();
    let followed = Followed::create(16).expect("a map");
    let site = Site { sys: Path::new("/sys"), followed: &followed, unified: false, cpus: &[] };
    let attach = |slow: Duration| {
        let knobs = vec![("slow_ns", slow.as_nanos() as u64)];
        Hook::attach("reclaim", &site, knobs, &mut Meter::default()).expect("this kernel has BTF")
    };
    let (mut any, mut slow) = (attach(Duration::ZERO), attach(Duration::from_secs(3600)));
    assert_eq!(any.knobs(), [("slow_ns", 0)]);
    let small = Small::new();
    let file = std::env::temp_dir().join(format!("onset-reclaim-{}", std::process::id()));
    let write = format!(
        "echo $$ > {}/cgroup.procs && exec dd if=/dev/zero of={} bs=1M count=64 status=none",
        small.0.display(),
        file.display()
    );
    let mut dd = std::process::Command::new("sh").args(["-c", &write]).spawn().expect("sh");
    let done = dd.wait().expect("it ends");
    std::fs::remove_file(&file).expect("it was written");
    assert!(done.success());
    any.detach();
    let mut records = Vec::new();
    while any.drain(|record| records.push(record.to_vec())) == Drained::More {}
    let all = records.iter().map(|record| Reclaim::read(record).expect("a whole record").0);
    // Its process and its only thread are one number.
    let own: Vec<_> = all.filter(|one| (one.pid, one.tid) == (dd.id(), dd.id())).collect();
    assert!(!own.is_empty(), "it had to free what it had written before");
    assert!(own.iter().all(|one| one.took_ns > 0 && one.comm.starts_with(b"dd\0")), "{own:?}");
    let mut past = 0;
    while slow.drain(|_| past += 1) == Drained::More {}
    assert_eq!((past, slow.lost()), (0, 0), "none took an hour");
}

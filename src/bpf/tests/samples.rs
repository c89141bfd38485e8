//! Samples of busy CPUs: of which time they are, and that each is there once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use super::*;

/// Keeps a thread on a CPU, and that CPU busy, until it is dropped.
struct Busy(Arc<AtomicBool>, Vec<JoinHandle<()>>);

impl Busy {
    fn on(cpus: impl IntoIterator<Item = u32>) -> Busy {
        let stop = Arc::new(AtomicBool::new(false));
        let spin = |cpu: u32| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                // SAFETY: an all-zero cpu_set_t is the empty set.
                let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
                // SAFETY: the set is ours and of this size.
                let moved = unsafe {
                    libc::CPU_SET(cpu as usize, &mut set);
                    libc::sched_setaffinity(0, size_of_val(&set), &raw const set)
                };
                assert_eq!(moved, 0, "CPU {cpu} is online");
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })
        };
        let threads = cpus.into_iter().map(spin).collect();
        Busy(stop, threads)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        for thread in self.1.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Samples that were counted between the last two turns.
fn samples(armed: &mut Armed<'_>) -> u64 {
    let mut all = 0;
    let lost = armed.counts(|count| all += count.weight);
    assert_eq!(lost.expect("counts"), 0);
    all
}

/// Asserts that `samples` is what this number of CPUs gives in `time` if none of them is ever idle.
fn assert_whole(what: &str, samples: u64, time: Duration, cpus: usize) {
    let want = time.as_secs_f64() * f64::from(HZ) * cpus as f64;
    eprintln!("{what}: {samples} samples, {want:.1} expected");
    // Each CPU may be in the middle of a period.
    assert!((samples as f64 - want).abs() <= want * 0.05 + 2.0, "{what}: {samples}, not {want:.1}");
}

#[test]
fn a_late_sampling_turn_still_ends_on_time() {
    if !root() {
        return;
    }
    let _alone = alone();
    let followed = Followed::create(16).expect("a map");
    let site = Site { sys: Path::new("/sys"), followed: &followed, unified: false, cpus: &[0, 1] };
    let mut stacks = Stacks::by_clock(&site, &mut Meter::default()).expect("this kernel has BTF");
    let mut armed = stacks.arm().expect("armed");
    let all = cpus::online(Path::new("/sys")).expect("a list");
    let _busy = Busy::on(all.clone());
    armed.aim(true, []).expect("aimed");
    let second = Duration::from_secs(1);
    // Due in a second, ends in two; this thread comes in three.
    let now = crate::sys::monotonic();
    armed.turn(now, Some(now + second), now + 2 * second).expect("a turn");
    std::thread::sleep(3 * second);
    assert_eq!(until_the_next(&mut armed), now + second, "it ended when it was due");
    assert_whole("until it was due", samples(&mut armed), second, all.len());
    let began = crate::sys::monotonic();
    let ended = until_the_next(&mut armed);
    // Since it was due: until the end that it had, and since the turn that gave it none.
    assert_whole("until the end", samples(&mut armed), second + (ended - began), all.len());
}

#[test]
fn a_sampling_turn_that_starts_early_does_not_touch_the_buffer_being_read() {
    if !root() {
        return;
    }
    let _alone = alone();
    let followed = Followed::create(16).expect("a map");
    let site = Site { sys: Path::new("/sys"), followed: &followed, unified: false, cpus: &[0, 1] };
    let mut stacks = Stacks::by_clock(&site, &mut Meter::default()).expect("this kernel has BTF");
    let mut armed = stacks.arm().expect("armed");
    let cpus = cpus::online(Path::new("/sys")).expect("a list");
    let _busy = Busy::on(cpus.clone());
    armed.aim(true, []).expect("aimed");
    // As if this thread had waited for a CPU between the clock and the kernel.
    let began = crate::sys::monotonic();
    let now = began.saturating_sub(Duration::from_secs(1));
    let due = now + Duration::from_millis(1);
    armed.turn(now, Some(due), began + Duration::from_secs(1000)).expect("a turn");
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(samples(&mut armed), 0, "what was over when the turn was taken had no samples");
    let ended = until_the_next(&mut armed);
    assert_whole("since the turn", samples(&mut armed), ended - began, cpus.len());
}

#[test]
fn samples_counted_during_a_read_appear_exactly_once() {
    if !root() {
        return;
    }
    let _alone = alone();
    let followed = Followed::create(16).expect("a map");
    let site = Site { sys: Path::new("/sys"), followed: &followed, unified: false, cpus: &[0, 1] };
    let mut stacks = Stacks::by_clock(&site, &mut Meter::default()).expect("this kernel has BTF");
    let mut armed = stacks.arm().expect("armed");
    let cpus = cpus::online(Path::new("/sys")).expect("a list");
    let _busy = Busy::on(cpus.clone());
    armed.aim(true, []).expect("aimed");
    let began = until_the_next(&mut armed);
    let (mut all, mut ended) = (0, began);
    for _ in 0..2000 {
        ended = until_the_next(&mut armed);
        all += samples(&mut armed);
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_whole("in 2000 turns", all, ended - began, cpus.len());
}

#[test]
fn cpu_hotplug_adds_and_removes_sampling() {
    if !root() {
        return;
    }
    let _alone = alone();
    let real = cpus::online(Path::new("/sys")).expect("a list");
    let Some(later) = real.get(1).copied() else {
        return eprintln!("SKIPPED: there is one CPU only");
    };
    let sys = std::env::temp_dir().join(format!("onset-sys-{}", std::process::id()));
    let online = sys.join("devices/system/cpu/online");
    std::fs::create_dir_all(sys.join("kernel/btf")).expect("a folder");
    std::fs::create_dir_all(online.parent().expect("a folder")).expect("a folder");
    std::fs::write(sys.join("kernel/btf/vmlinux"), "").expect("a file");
    std::fs::write(&online, format!("{}\n", real[0])).expect("a file");
    let followed = Followed::create(16).expect("a map");
    let site = Site { sys: &sys, followed: &followed, unified: false, cpus: &real[..1] };
    let mut stacks = Stacks::by_clock(&site, &mut Meter::default()).expect("this kernel has BTF");
    let mut armed = stacks.arm().expect("armed");
    armed.aim(true, []).expect("aimed");
    let _busy = Busy::on([real[0], later]);
    for (list, count) in
        [(format!("{}", real[0]), 1), (format!("{},{later}", real[0]), 2), (format!("{later}"), 1)]
    {
        std::fs::write(&online, format!("{list}\n")).expect("a file");
        armed.attach_online().expect("attached");
        let began = until_the_next(&mut armed);
        std::thread::sleep(Duration::from_secs(1));
        let ended = until_the_next(&mut armed);
        assert_whole(&list, samples(&mut armed), ended - began, count);
    }
    std::fs::write(&online, format!("{},{later}\n", real[0])).expect("a file");
    armed.attach_online().expect("attached");
    for broken in ["no list", "no file"] {
        match broken {
            "no list" => std::fs::write(&online, "").expect("a file"),
            _ => std::fs::remove_file(&online).expect("a file"),
        }
        let error = armed.attach_online().expect_err(broken);
        assert!(matches!(error, Error::Cpus(_)), "{broken}: {error}");
        let began = until_the_next(&mut armed);
        std::thread::sleep(Duration::from_secs(1));
        let ended = until_the_next(&mut armed);
        assert_whole(broken, samples(&mut armed), ended - began, 2);
    }
    let _ = std::fs::remove_dir_all(&sys);
}

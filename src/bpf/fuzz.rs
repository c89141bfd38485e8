//! What the programs hand over, as fuzz targets: whatever the bytes are, what is read of them is what
//! they hold, and no more than they hold.

use std::io::{self, Read};

use super::cgroups;
use super::io::address;
use super::io_record::{IoFile, IoKey, IoRecord, IoRow, IoTarget, pack};
use super::sent::{Count, Sent};
use super::tasks::{Passing, Stuck, each_record};
use super::waits::{Group, Tally};
use crate::fuzz::heap;
use crate::host::{Key, TaskCounts};
use crate::symbol::UserFrame;

/// A name of 16 bytes that is no UTF-8 grows when it is made fit to be shown.
const COMM_MAX: usize = 48;

/// Gives bytes in portions of its own choosing.
pub(super) struct Portions<'b>(pub(super) &'b [u8], pub(super) usize);

impl Read for Portions<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        self.1 = self.1 % 7 + 1;
        let count = self.1.min(to.len()).min(self.0.len());
        let (now, later) = self.0.split_at(count);
        to.get_mut(..count).unwrap_or_default().copy_from_slice(now);
        self.0 = later;
        Ok(count)
    }
}

/// Reads all tasks out of a stream that comes in portions. A stream that ends within one is an error.
fn stream<const SIZE: usize>(data: &[u8], room: usize, mut each: impl FnMut(&[u8; SIZE])) {
    let mut buffer = vec![0; room];
    let mut count = 0;
    let read = heap::untouched(|| {
        each_record(&mut Portions(data, data.len()), &mut buffer, |record: &[u8; SIZE]| {
            count += 1;
            heap::aside(|| each(record));
        })
    });
    assert_eq!((count, read.is_ok()), (data.len() / SIZE, data.len().is_multiple_of(SIZE)));
}

/// What is told of cgroups: it takes no memory, and pages that are told add up.
pub fn cgroup(data: &[u8]) {
    for record in data.as_chunks::<{ cgroups::RECORD }>().0 {
        let told = heap::untouched(|| cgroups::parse(record, 4096));
        assert_eq!(told.nodes.first(), Some(&word(record, 16)));
        if let (Some(held), Some(throttling)) = (told.held, told.throttling) {
            assert!(held.shmem_bytes.is_some() && held.locked_bytes.is_some());
            assert_eq!(throttling.periods, word(record, 8 * 15));
        }
        assert!(told.cpus.is_none_or(|cpus| cpus <= 64));
    }
}

/// All tasks in passing, out of the task iterator: each is counted once, and none takes memory.
pub fn passing(data: &[u8]) {
    let (mut counts, mut dead, mut all) = (TaskCounts::default(), 0, 0);
    stream(data, 64, |record| {
        let task = heap::untouched(|| Passing::parse(record).sample());
        assert_eq!(task.container, Key::from_bits(word(record, 0)));
        let before = counts;
        counts.add(&task);
        dead += u32::from(before == counts && task.state == crate::host::TaskState::Dead);
        all += 1;
    });
    let TaskCounts { running, sleeping, stopped, uninterruptible, iowait, .. } = counts;
    assert_eq!(running + sleeping + stopped + uninterruptible + dead, all, "each task is in one state");
    assert!(iowait <= uninterruptible);
}

/// Tasks in D state with their stacks, out of the task iterator.
pub fn stuck(data: &[u8]) {
    stream(data, super::tasks::STUCK + 100, |record| {
        let Some(task) = Stuck::parse(record) else { panic!("a whole record is a task") };
        check_comm(&task.comm);
        assert!(task.kernel.len() <= (record.len() - 48) / 8, "more frames than there is room for");
        let mut again = *record;
        for (frame, raw) in task.kernel.iter().zip(again.get_mut(48..).unwrap_or_default().chunks_mut(8)) {
            raw.copy_from_slice(&frame.to_ne_bytes());
        }
        assert_eq!(again, *record, "frames are what is in it, in its order");
        assert_eq!(task.container, Key::from_bits(word(record, 0)));
    });
}

/// A new stack, out of the ring of the sampling programs.
pub fn stack(data: &[u8]) {
    let Some(stack) = Sent::parse(data) else { return };
    check_comm(&stack.comm);
    let (kernel, user) = (half(data, 44), half(data, 46));
    assert_eq!(stack.kernel.len(), kernel / 8);
    assert!(stack.user.len() <= user / UserFrame::SIZE);
    let whole = 72 + kernel + user;
    let cut = data.get(..whole - 1).unwrap_or_default();
    assert_eq!(Sent::parse(cut), None, "a stack that lacks a byte is none");
    let padded = [data.get(..whole).unwrap_or_default(), &[0xff; 7]].concat();
    assert_eq!(Sent::parse(&padded), Some(stack), "what the ring rounds up is not its own");
}

/// What maps add up, after a byte that says which: how much stacks weighed, how groups waited, and for whom.
pub fn sums(data: &[u8]) {
    let Some((kind, data)) = data.split_first() else { return };
    match kind % 3 {
        0 => count(data),
        1 => waited(data),
        _ => culprits(data),
    }
}

fn count(data: &[u8]) {
    let Some((key, sum)) = data.split_at_checked(24) else { return };
    let Some(count) = Count::parse(key, sum) else { return };
    let bits = count.container.map_or(word(key, 0), Key::to_bits);
    let last = u64::try_from(count.last.as_nanos()).unwrap_or(0);
    let again = [bits, count.hash, count.pid.into(), count.weight, last].map(u64::to_ne_bytes).concat();
    assert_eq!(Some(&*again), data.get(..40));
}

/// A group's account on each CPU: all that is whole is added, and never less for more.
fn waited(data: &[u8]) {
    let Some((key, values)) = data.split_at_checked(8) else { return };
    let mut tally = Tally::default();
    tally.waited(key, &mut values.chunks(56));
    let Some((group, sum)) = tally.groups.iter().next() else { panic!("a key is a group") };
    let bits = match group {
        Group::Container(key) => key.to_bits(),
        Group::Cgroup(id) => *id,
    };
    assert_eq!((bits, tally.groups.len()), (word(key, 0), 1));
    let column = |at: usize| {
        let whole = values.chunks_exact(56).map(|account| u128::from(word(account, at)));
        whole.sum::<u128>()
    };
    let most = u128::from(u64::MAX);
    assert_eq!(u128::from(sum.waits), column(48).min(most));
    let times = [sum.ran, sum.all, sum.inner, sum.external, sum.throttled, sum.unheld];
    for (place, time) in times.iter().enumerate() {
        assert_eq!(time.as_nanos(), column(place * 8));
    }
}

/// A pair's times on each CPU.
fn culprits(data: &[u8]) {
    let Some((key, values)) = data.split_at_checked(16) else { return };
    let mut tally = Tally::default();
    tally.held_up(key, &mut values.chunks(8));
    assert_eq!(tally.culprits.len(), 1, "a key is a pair");
    let whole = values.chunks_exact(8).map(|value| u128::from(word(value, 0))).sum::<u128>();
    let held = tally.culprits.values().next().map(std::time::Duration::as_nanos);
    assert_eq!(held, Some(whole.min(u64::MAX.into())));
}

/// As it lies in a record.
fn same_file(file: IoFile, raw: &[u8]) {
    assert_eq!([file.superblock, file.inode, file.tree], [word(raw, 0), word(raw, 8), word(raw, 16)]);
    assert_eq!((pack(file.filesystem), file.generation), (quarter(raw, 24), quarter(raw, 28)));
}

/// A path or a stall, out of the ring of the io program.
pub fn io_record(data: &[u8]) {
    match IoRecord::parse(data) {
        None => {}
        Some(IoRecord::Path { file, path }) => {
            same_file(file, data.get(8..).unwrap_or_default());
            assert!(path.starts_with('/') && !path.contains('\0'));
            if data.contains(&b'/') {
                return; // no name holds one: none could be looked up
            }
            assert!(*path == *"/" || !path.contains("//"));
            // The same path, as the program would send it.
            let mut record = data.get(..4).unwrap_or_default().to_vec();
            record.extend(1_u32.to_ne_bytes());
            record.extend(data.get(8..40).unwrap_or_default());
            let names = path.trim_start_matches('/').rsplit('/').collect::<Vec<_>>().join("\0");
            record.extend(u32::try_from(names.len()).unwrap_or(0).to_ne_bytes());
            record.extend(0_u32.to_ne_bytes());
            record.extend(names.bytes());
            assert_eq!(IoRecord::parse(&record), Some(IoRecord::Path { file, path }));
        }
        Some(IoRecord::Stall(stall)) => {
            check_comm(&stall.comm);
            assert!(stall.kernel.len() * 8 + 56 <= data.len());
            let tail: Vec<u8> = stall.kernel.iter().flat_map(|frame| frame.to_ne_bytes()).collect();
            assert_eq!(data.get(56..56 + tail.len()), Some(&*tail), "frames are what is in it, in its order");
            let padded = [data.get(..56 + tail.len()).unwrap_or_default(), &[0xff; 7]].concat();
            assert_eq!(IoRecord::parse(&padded), Some(IoRecord::Stall(stall)));
        }
    }
}

/// What the io program's maps hold, after a byte that says which: a row, or a bio that is under way.
pub fn io_row(data: &[u8]) {
    let Some((kind, data)) = data.split_first() else { return };
    let Some(key) = IoKey::parse(data) else { return };
    assert_eq!(key.container, Key::from_bits(word(data, 0)));
    assert_eq!((key.pid, pack(key.disk)), (quarter(data, 40), quarter(data, 44)));
    match key.target {
        IoTarget::File(file) => same_file(file, data.get(8..).unwrap_or_default()),
        IoTarget::Disk(device) => assert_eq!(pack(device), quarter(data, 32)),
        IoTarget::Unknown => {}
    }
    if kind % 2 == 0 {
        let value = data.get(56..).unwrap_or_default();
        let Some(row) = IoRow::parse(value) else { return };
        check_comm(&row.comm);
        let times = [row.whole.0, row.whole.1].map(|time| u64::try_from(time.as_nanos()).unwrap_or(0));
        assert_eq!(times, [word(value, 32), word(value, 40)]);
        assert_eq!((row.fs_written, row.finished, row.in_flight), (word(value, 0), word(value, 24), 0));
    } else {
        const NOW: u64 = 1 << 40;
        let Some((again, row)) = IoRow::of_flight(data, NOW) else { return };
        assert_eq!(again, key);
        check_comm(&row.comm);
        for (average, most) in [row.whole, row.device] {
            assert!(average == most && most.as_nanos() <= u128::from(NOW), "longer than there is time");
        }
    }
}

/// /proc/kallsyms, as it is searched for one function: each is found by its name, unless it is hidden.
pub fn kallsyms(data: &[u8]) {
    const SOUGHT: usize = 16;
    assert_eq!(address(data, "no function has a name of several words"), None);
    let text = String::from_utf8_lossy(data);
    for line in text.lines().take(SOUGHT) {
        let mut fields = line.split_ascii_whitespace();
        let (Some(_), Some(name)) = (fields.next(), fields.nth(1)) else { continue };
        let found = address(data, name);
        let told = |address: u64| {
            let mut lines = text.lines().filter(|line| line.split_ascii_whitespace().nth(2) == Some(name));
            lines.any(|line| {
                let first = line.split_ascii_whitespace().next().unwrap_or_default();
                u64::from_str_radix(first, 16) == Ok(address)
            })
        };
        assert!(found.is_none_or(|address| address != 0 && told(address)), "{name} is not at {found:?}");
    }
}

fn check_comm(comm: &str) {
    assert!(comm.len() <= COMM_MAX && !comm.contains(char::is_control), "{comm:?}");
}

fn part<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let Some(part) = bytes.get(at..).and_then(<[u8]>::first_chunk) else {
        panic!("it was read, so it is there")
    };
    *part
}

fn half(bytes: &[u8], at: usize) -> usize {
    u16::from_ne_bytes(part(bytes, at)).into()
}

fn quarter(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(part(bytes, at))
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(part(bytes, at))
}

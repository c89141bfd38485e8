//! What the programs hand over, as fuzz targets: whatever the bytes are, what is read of them is what
//! they hold, and no more than they hold.

use std::io::{self, Read};

use super::cgroups;
use super::io::address;
use super::io_record::{IoFile, IoKey, IoRecord, IoRow, IoTarget, pack};
use super::sent::{Count, StackRecord};
use super::tasks::{Stuck, TaskSummary, each_record};
use super::waits::{Group, WaitSums};
use crate::fuzz::heap;
use crate::host::{Key, TaskCounts};
use crate::layout;
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
        let (raw, _) = read_before(layout::cgroups::CgroupRecord::read(record));
        assert_eq!(told.nodes.map(u64::to_ne_bytes).as_flattened(), raw.nodes);
        if let (Some(held), Some(throttling)) = (told.held, told.throttling) {
            assert!(held.shmem_bytes.is_some() && held.locked_bytes.is_some());
            assert_eq!(throttling.periods, raw.periods);
        }
        assert!(told.cpus.is_none_or(|cpus| cpus <= 64));
    }
}

/// Summaries of all tasks, out of the task iterator: each is counted once, and none takes memory.
pub fn task_summary(data: &[u8]) {
    let (mut counts, mut dead, mut all) = (TaskCounts::default(), 0, 0);
    stream(data, 64, |record: &[u8; layout::tasks::TaskSummary::SIZE]| {
        let task = heap::untouched(|| read_before(TaskSummary::parse(record)).sample());
        let (raw, _) = read_before(layout::tasks::TaskSummary::read(record));
        assert_eq!(&raw.bytes(), record, "its fields are all of it");
        assert_eq!(task.container, Key::from_bits(raw.container));
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
    stream(data, layout::tasks::Stuck::WHOLE + 100, |record: &[u8; layout::tasks::Stuck::WHOLE]| {
        let Some(task) = Stuck::parse(record) else { panic!("a whole record is a task") };
        let (head, stack) = read_before(layout::tasks::Stuck::read(record));
        check_comm(&task.comm);
        assert!(task.kernel.len() <= stack.len() / 8, "more frames than there is room for");
        assert!(starts_with_frames(stack, &task.kernel), "frames are what is in it, in its order");
        assert_eq!(task.container, Key::from_bits(head.container));
    });
}

/// A new stack, out of the ring of the sampling programs.
pub fn stack(data: &[u8]) {
    let Some(stack) = StackRecord::parse(data) else { return };
    check_comm(&stack.comm);
    let (head, _) = read_before(layout::stacks::Stack::read(data));
    let (kernel, user) = (usize::from(head.kernel_bytes), usize::from(head.user_bytes));
    assert_eq!(stack.kernel.len(), kernel / 8);
    assert!(stack.user.len() <= user / UserFrame::SIZE);
    let whole = layout::stacks::Stack::SIZE + kernel + user;
    let cut = data.get(..whole - 1).unwrap_or_default();
    assert_eq!(StackRecord::parse(cut), None, "a stack that lacks a byte is none");
    let padded = [data.get(..whole).unwrap_or_default(), &[0xff; 7]].concat();
    assert_eq!(StackRecord::parse(&padded), Some(stack), "what the ring rounds up is not its own");
}

/// What maps add up, after a byte that says which: how much stacks weighed, how groups waited, and for whom.
pub fn sums(data: &[u8]) {
    let Some((kind, data)) = data.split_first() else { return };
    match kind % 3 {
        0 => count(data),
        1 => waited(data),
        _ => interferers(data),
    }
}

fn count(data: &[u8]) {
    use layout::stacks::{Counted, Sum};
    let Some((key, sum)) = data.split_at_checked(Counted::SIZE) else { return };
    let Some(count) = Count::parse(key, sum) else { return };
    let ((counted, _), (summed, rest)) = (read_before(Counted::read(key)), read_before(Sum::read(sum)));
    let container = count.container.map_or(counted.container, Key::to_bits);
    assert_eq!(counted, Counted { container, hash: count.hash, tgid: count.pid.into() });
    assert_eq!(summed, Sum { weight: count.weight, last: u64::try_from(count.last.as_nanos()).unwrap_or(0) });
    assert_eq!([&counted.bytes()[..], &summed.bytes(), rest].concat(), data);
}

/// A group's account on each CPU: all that is whole is added, and never less for more.
fn waited(data: &[u8]) {
    use layout::waits::Account;
    let Some((key, values)) = data.split_at_checked(size_of::<u64>()) else { return };
    let mut tally = WaitSums::default();
    tally.add_waits(key, &mut values.chunks(Account::SIZE));
    let Some((group, sum)) = tally.groups.iter().next() else { panic!("a key is a group") };
    let bits = match group {
        Group::Container(key) => key.to_bits(),
        Group::Cgroup(id) => *id,
    };
    assert_eq!((Some(bits), tally.groups.len()), (layout::numbers(key).next(), 1));
    let accounts = || values.chunks_exact(Account::SIZE).filter_map(Account::read);
    let column =
        |of: fn(&Account) -> u64| accounts().map(|(account, _)| u128::from(of(&account))).sum::<u128>();
    assert_eq!(u128::from(sum.waits), column(|account| account.waits).min(u64::MAX.into()));
    assert_eq!(sum.ran.as_nanos(), column(|account| account.ran));
    assert_eq!(sum.all.as_nanos(), column(|account| account.waited));
    assert_eq!(sum.inner.as_nanos(), column(|account| account.inner));
    assert_eq!(sum.external.as_nanos(), column(|account| account.external));
    assert_eq!(sum.throttled.as_nanos(), column(|account| account.throttled));
    assert_eq!(sum.unheld.as_nanos(), column(|account| account.unheld));
}

/// A pair's times on each CPU.
fn interferers(data: &[u8]) {
    let Some((key, values)) = data.split_at_checked(layout::waits::Pair::SIZE) else { return };
    let mut tally = WaitSums::default();
    tally.add_interference(key, &mut values.chunks(8));
    assert_eq!(tally.interferers.len(), 1, "a key is a pair");
    let (times, _) = values.as_chunks();
    let whole = times.iter().map(|time| u128::from(u64::from_ne_bytes(*time))).sum::<u128>();
    let held = tally.interferers.values().next().map(std::time::Duration::as_nanos);
    assert_eq!(held, Some(whole.min(u64::MAX.into())));
}

/// As it lies in a record.
fn same_file(file: IoFile, raw: layout::io::FileId) {
    let IoFile { filesystem, superblock, inode, tree, generation } = file;
    assert_eq!(layout::io::FileId { superblock, inode, tree, filesystem: pack(filesystem), generation }, raw);
}

/// A path or a stall, out of the ring of the io program.
pub fn io_record(data: &[u8]) {
    match IoRecord::parse(data) {
        None => {}
        Some(IoRecord::Path { file, path }) => {
            let (head, _) = read_before(layout::io::PathRecord::read(data));
            same_file(file, head.file);
            assert!(path.starts_with('/') && !path.contains('\0'));
            if data.contains(&b'/') {
                return; // no name holds one: none could be looked up
            }
            assert!(*path == *"/" || !path.contains("//"));
            // The same path, as the program would send it.
            let names = path.trim_start_matches('/').rsplit('/').collect::<Vec<_>>().join("\0");
            let bytes = u32::try_from(names.len()).unwrap_or(0);
            let record = layout::io::PathRecord { whole: 1, bytes, deleted: 0, ..head }.bytes();
            let record = [&record[..], names.as_bytes()].concat();
            assert_eq!(IoRecord::parse(&record), Some(IoRecord::Path { file, path }));
        }
        Some(IoRecord::Stall(stall)) => {
            check_comm(&stall.comm);
            let (_, stack) = read_before(layout::io::StallRecord::read(data));
            assert!(starts_with_frames(stack, &stall.kernel), "frames are what is in it, in its order");
            let used = data.len() - stack.len() + stall.kernel.len() * 8;
            let padded = [data.get(..used).unwrap_or_default(), &[0xff; 7]].concat();
            assert_eq!(IoRecord::parse(&padded), Some(IoRecord::Stall(stall)));
        }
    }
}

/// What the io program's maps hold, after a byte that says which: a row, or a bio that is under way.
pub fn io_row(data: &[u8]) {
    let Some((kind, data)) = data.split_first() else { return };
    let Some(key) = IoKey::parse(data) else { return };
    let (raw, value) = read_before(layout::io::RowKey::read(data));
    assert_eq!(key.container, Key::from_bits(raw.container));
    assert_eq!((key.pid, pack(key.disk)), (raw.tgid, raw.disk));
    match key.target {
        IoTarget::File(file) => same_file(file, raw.file),
        IoTarget::Disk(device) => assert_eq!(pack(device), raw.file.filesystem),
        IoTarget::Unknown => {}
    }
    if kind % 2 == 0 {
        let Some(row) = IoRow::parse(value) else { return };
        let (raw, _) = read_before(layout::io::Row::read(value));
        check_comm(&row.comm);
        let times = [row.whole.0, row.whole.1].map(|time| u64::try_from(time.as_nanos()).unwrap_or(0));
        assert_eq!(times, [raw.q2c_ns, raw.q2c_max_ns]);
        assert_eq!((row.fs_written, row.finished, row.in_flight), (raw.fs_written, raw.bios, 0));
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

/// What a parser has read from the same bytes already.
fn read_before<T>(read: Option<T>) -> T {
    read.unwrap_or_else(|| panic!("it was read before"))
}

/// Whether these addresses are what the bytes of a stack begin with.
fn starts_with_frames(stack: &[u8], frames: &[u64]) -> bool {
    let frames: Vec<u8> = frames.iter().flat_map(|frame| frame.to_ne_bytes()).collect();
    stack.starts_with(&frames)
}

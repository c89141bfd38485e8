//! What /proc/diskstats counted between two readings.

use crate::capture_data::Device;
use crate::host::Disk;

/// Bytes read and written.
pub(super) type Bytes = (u64, u64);

/// What diskstats has counted since boot.
pub(super) type Counters = Vec<Disk>;

/// The name that diskstats has for a device.
pub(super) fn counted(disks: &Counters, device: Device) -> Option<&str> {
    disks.iter().find(|disk| is(disk, device)).map(|disk| disk.name())
}

fn is(disk: &Disk, device: Device) -> bool {
    !disk.is_hidden() && (disk.major, disk.minor) == (device.major, device.minor)
}

/// What moved meanwhile: on the device, or where the kernel counts only on its hidden paths, on all of them.
pub(super) fn moved(device: Device, before: &Counters, after: &Counters) -> Option<Bytes> {
    let own = after.iter().find(|disk| is(disk, device))?;
    let of_paths = || {
        let mut paths = after.iter().filter(|disk| disk.is_path_of(own.name())).peekable();
        paths.peek()?;
        Some(paths.map(|path| difference(path, before)).try_fold((0, 0), |sum: Bytes, path| {
            let (read, written) = path?;
            Some((sum.0.saturating_add(read), sum.1.saturating_add(written)))
        }))
    };
    match difference(own, before) {
        Some((0, 0)) => of_paths().unwrap_or(Some((0, 0))),
        moved => moved,
    }
}

/// `None` if a counter went back, as it does when a device goes and comes. A device that came meanwhile began at
/// nothing.
fn difference(now: &Disk, before: &Counters) -> Option<Bytes> {
    let same = |disk: &&Disk| disk.name == now.name && (disk.major, disk.minor) == (now.major, now.minor);
    let before = before.iter().find(same).map_or((0, 0), |disk| (disk.read_bytes, disk.write_bytes));
    Some((now.read_bytes.checked_sub(before.0)?, now.write_bytes.checked_sub(before.1)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::proc::diskstats;

    #[test]
    fn what_moved_on_hidden_paths_is_the_devices_that_they_are_of() {
        let text = |paths: [u64; 2], head: u64| -> Counters {
            let line = |numbers: &str, name: &str, sectors: u64| {
                format!("{numbers} {name} 1 0 {sectors} 1 1 0 {} 1 0 1 1\n", 2 * sectors)
            };
            let [one, two] = paths;
            let all = line("0 0", "nvme0c0n1", one)
                + &line("0 0", "nvme0c1n1", two)
                + &line("259 1", "nvme0n1", head);
            diskstats::disks(all.as_bytes()).flatten().collect()
        };
        let head = Device { major: 259, minor: 1 };
        let between = |before, after| moved(head, &before, &after);
        assert_eq!(between(text([8, 80], 0), text([10, 90], 0)), Some((12 * 512, 24 * 512)), "of both paths");
        assert_eq!(between(text([8, 80], 5), text([10, 90], 16)), Some((11 * 512, 22 * 512)), "of its own");
        assert_eq!(between(text([8, 80], 0), text([8, 80], 0)), Some((0, 0)));
        assert_eq!(between(text([8, 80], 0), text([10, 70], 0)), None, "one of them went back");
        assert_eq!(moved(Device { major: 0, minor: 0 }, &text([0, 0], 0), &text([9, 9], 9)), None);
        assert_eq!(counted(&text([0, 0], 0), head), Some("nvme0n1"));
    }
}

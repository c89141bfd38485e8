//! /proc/diskstats: a line a block device. Kernels since 4.18 write four fields more for
//! discards, since 5.5 two more for flushes; they stand at the end and are not needed here.

use std::time::Duration;

use crate::host::Disk;
use crate::host::text::{decimal, fields, lines};

/// Sectors are of 512 bytes here, whatever the device's are.
const SECTOR_BYTES: u64 = 512;

/// Each line; `None` for one that is not understood.
pub fn disks(text: &[u8]) -> impl Iterator<Item = Option<Disk>> {
    lines(text).map(disk)
}

fn disk(line: &[u8]) -> Option<Disk> {
    let mut fields = fields(line);
    let major = u32::try_from(decimal(fields.next()?)?).ok()?;
    let minor = u32::try_from(decimal(fields.next()?)?).ok()?;
    let mut name = [0; 32];
    let given = fields.next()?;
    name.get_mut(..given.len())?.copy_from_slice(given);
    let mut next = || decimal(fields.next()?);
    let [reads, _merged, read_sectors, read_ms] = [next()?, next()?, next()?, next()?];
    let [writes, _merged, write_sectors, write_ms] = [next()?, next()?, next()?, next()?];
    let [in_flight, busy_ms, queued_ms] = [next()?, next()?, next()?];
    Some(Disk {
        major,
        minor,
        name,
        reads,
        read_bytes: read_sectors.checked_mul(SECTOR_BYTES)?,
        read_time: Duration::from_millis(read_ms),
        writes,
        write_bytes: write_sectors.checked_mul(SECTOR_BYTES)?,
        write_time: Duration::from_millis(write_ms),
        in_flight,
        busy: Duration::from_millis(busy_ms),
        queued: Duration::from_millis(queued_ms),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &[u8], name: &str) -> Disk {
        let all: Option<Vec<Disk>> = disks(text).collect();
        all.expect("every line is understood").into_iter().find(|disk| disk.name() == name).expect("this one")
    }

    #[test]
    fn lines_of_every_length_are_read() {
        let new = named(include_bytes!("../../../fuzz/corpus/diskstats/6.18"), "vda");
        assert_eq!((new.major, new.minor), (254, 0));
        assert_eq!((new.reads, new.read_bytes), (78_889, 7_705_986 * 512));
        assert_eq!((new.writes, new.write_bytes), (25_642, 12_809_344 * 512));
        assert_eq!(new.read_time, Duration::from_millis(73_764));
        assert_eq!(new.write_time, Duration::from_millis(44_995));
        assert_eq!(new.busy, Duration::from_millis(13_204));
        assert_eq!(new.queued, Duration::from_millis(119_802));

        let with_discards = named(include_bytes!("../../../fuzz/corpus/diskstats/4.19"), "nvme0n1p2");
        assert_eq!((with_discards.in_flight, with_discards.busy), (3, Duration::from_millis(882_380)));
        let old = named(include_bytes!("../../../fuzz/corpus/diskstats/3.10"), "dm-0");
        assert_eq!((old.major, old.writes), (253, 1_302_441));
    }

    #[test]
    fn a_line_that_is_not_understood_does_not_hide_the_next() {
        let text = b"8 0 sda 1 2\n8 1 sdb 1 2 3 4 5 6 7 8 9 10 11\n";
        let read: Vec<_> = disks(text).map(|disk| disk.map(|disk| disk.in_flight)).collect();
        assert_eq!(read, [None, Some(9)]);
    }

    #[test]
    fn numbers_past_any_disk_are_refused() {
        let long = b"8 0 a_name_that_is_longer_than_the_kernel_allows 1 2 3 4 5 6 7 8 9 10 11";
        assert_eq!(disk(long), None);
        assert_eq!(disk(b"8 0 sda 1 2 18446744073709551615 4 5 6 7 8 9 10 11"), None);
        assert_eq!(disk(b"4294967296 0 sda 1 2 3 4 5 6 7 8 9 10 11"), None);
    }
}

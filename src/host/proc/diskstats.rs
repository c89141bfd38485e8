//! /proc/diskstats: a line a block device. Kernels since 4.18 write four fields more for
//! discards, since 5.5 two more for flushes; they stand at the end and are not needed here.

use std::time::Duration;

use crate::host::Disk;
use crate::host::text::{decimal, fields, lines};

/// Sectors are of 512 bytes here, whatever the device's are.
const SECTOR_BYTES: u64 = 512;

/// How many numbers there are after a name: with flushes, with discards, and before those.
const NUMBERS: [usize; 3] = [17, 15, 11];

/// A number of 32 bits that is more than this was below zero.
const BELOW_ZERO: u64 = i32::MAX as u64;

/// Each line; `None` for one that is not understood.
pub fn disks(text: &[u8]) -> impl Iterator<Item = Option<Disk>> {
    lines(text).map(disk)
}

fn disk(line: &[u8]) -> Option<Disk> {
    let mut fields = fields(line);
    let major = u32::try_from(decimal(fields.next()?)?).ok()?;
    let minor = u32::try_from(decimal(fields.next()?)?).ok()?;
    let mut name = [0; 32];
    let mut end = 0;
    for word in words_of_name(fields.clone())? {
        let start = if end == 0 { 0 } else { end + 1 };
        if start > 0 {
            *name.get_mut(end)? = b' ';
        }
        end = start + word.len();
        name.get_mut(start..end)?.copy_from_slice(word);
        fields.next();
    }
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
        // Below zero, as the kernel's count has been for some drivers, there is none.
        in_flight: if in_flight > BELOW_ZERO { 0 } else { in_flight },
        busy: Duration::from_millis(busy_ms),
        queued: Duration::from_millis(queued_ms),
    })
}

/// What of the fields after a device's numbers is its name: most often the first; an md array may have a
/// name of several words.
fn words_of_name<'t>(
    fields: impl Iterator<Item = &'t [u8]> + Clone,
) -> Option<impl Iterator<Item = &'t [u8]>> {
    let numeric = |from: usize| fields.clone().skip(from).all(|field| decimal(field).is_some());
    let words = if fields.clone().nth(1).is_none_or(|second| decimal(second).is_some()) {
        1
    } else {
        let all = fields.clone().count();
        NUMBERS
            .iter()
            .find_map(|numbers| all.checked_sub(*numbers).filter(|words| *words > 0 && numeric(*words)))?
    };
    Some(fields.take(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn diskstats_of_each_kind_of_device_are_parsed() {
        let text = include_bytes!("../../../fuzz/corpus/diskstats/kinds");
        let read: Vec<Option<Disk>> = disks(text).collect();
        let odd: Vec<usize> = (0..read.len()).filter(|at| read[*at].is_none()).collect();
        assert_eq!(odd, [12], "a partition of Linux 2.4 has four numbers: the line is not understood");
        for name in ["cciss/c0d0p1", "etherd/e1.1", "md my array", "mmcblk0boot0", "nbd0p1", "rbd0"] {
            assert_eq!(named_in(&read, name).reads, 5787, "{name}");
        }
        assert_eq!(named_in(&read, "sdg").in_flight, 0, "it was one below zero");
        let path = named_in(&read, "nvme0c1n1");
        assert!(path.is_hidden() && path.is_path_of("nvme0n1"));
        for other in ["nvme0n2", "nvme1n1", "nvme0c1n1", "nvme", "sda", ""] {
            assert!(!path.is_path_of(other), "{other}");
        }
        assert!(!named_in(&read, "sda").is_path_of("sda"));
    }

    fn named_in(read: &[Option<Disk>], name: &str) -> Disk {
        *read.iter().flatten().find(|disk| disk.name() == name).unwrap_or_else(|| panic!("{name}"))
    }

    fn named(text: &[u8], name: &str) -> Disk {
        let all: Option<Vec<Disk>> = disks(text).collect();
        all.expect("every line is understood").into_iter().find(|disk| disk.name() == name).expect("this one")
    }

    #[test]
    fn diskstats_lines_of_every_kernels_length_are_parsed() {
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
    fn a_broken_diskstats_line_does_not_hide_the_next() {
        let text = b"8 0 sda 1 2\n8 1 sdb 1 2 3 4 5 6 7 8 9 10 11\n";
        let read: Vec<_> = disks(text).map(|disk| disk.map(|disk| disk.in_flight)).collect();
        assert_eq!(read, [None, Some(9)]);
    }

    #[test]
    fn absurd_diskstats_numbers_are_refused() {
        let long = b"8 0 a_name_that_is_longer_than_the_kernel_allows 1 2 3 4 5 6 7 8 9 10 11";
        assert_eq!(disk(long), None);
        assert_eq!(disk(b"8 0 sda 1 2 18446744073709551615 4 5 6 7 8 9 10 11"), None);
        assert_eq!(disk(b"4294967296 0 sda 1 2 3 4 5 6 7 8 9 10 11"), None);
    }
}

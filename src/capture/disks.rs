//! How block devices lie on one another, as /sys tells it, and where filesystems are mounted:
//! what turns a device's numbers into names, and an inode's path into one that people can open.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use crate::capture_data::Device;
use crate::host::proc::mounts::mounts;

/// The block devices there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Disks {
    names: BTreeMap<Device, Box<str>>,
    /// Partitions, by the whole that they are of.
    wholes: BTreeMap<Device, Device>,
    /// Which lies on which.
    over: Vec<(Device, Device)>,
    /// Those of them that hand on what they get: a loop device writes to a file instead.
    hands_on: Vec<(Device, Device)>,
}

impl Disks {
    /// Reads /sys/block. `mounted` tells where the files are that loop devices lie on.
    pub(super) fn read(sys: &Path, mounted: &Mounts) -> Disks {
        let mut disks = Disks::default();
        let folders: Vec<(Device, PathBuf)> = entries(&sys.join("block"))
            .into_iter()
            .filter_map(|folder| Some((numbers(&folder.join("dev"))?, folder)))
            .collect();
        for (device, folder) in &folders {
            disks.name(*device, folder.file_name());
            for part in entries(folder).into_iter().filter(|part| part.join("partition").exists()) {
                if let Some(number) = numbers(&part.join("dev")) {
                    disks.name(number, part.file_name());
                    disks.wholes.insert(number, *device);
                }
            }
        }
        for (device, folder) in &folders {
            for below in entries(&folder.join("slaves")) {
                disks.lies_on(*device, numbers(&below.join("dev")));
            }
        }
        disks.hands_on = disks.over.clone();
        for (device, folder) in &folders {
            if let Ok(mut file) = fs::read(folder.join("loop/backing_file")) {
                file.truncate(file.trim_ascii_end().len());
                disks.lies_on(*device, mounted.filesystem_of(Path::new(OsStr::from_bytes(&file))));
            }
        }
        disks
    }

    fn name(&mut self, device: Device, name: Option<&OsStr>) {
        // In sysfs a slash in a name is an exclamation mark.
        let name = name.map(|name| name.to_string_lossy().replace('!', "/")).unwrap_or_default();
        self.names.insert(device, name.into());
    }

    fn lies_on(&mut self, device: Device, below: Option<Device>) {
        let below = below.map(|below| self.whole(below)).filter(|below| *below != device);
        self.over.extend(below.filter(|below| self.names.contains_key(below)).map(|below| (device, below)));
    }

    /// The disk that this is a partition of, or is itself.
    pub(super) fn whole(&self, device: Device) -> Device {
        self.wholes.get(&device).copied().unwrap_or(device)
    }

    /// Its name.
    pub(super) fn name_of(&self, device: Device) -> Option<&str> {
        self.names.get(&device).map(|name| &**name)
    }

    /// All whole disks.
    pub(super) fn all(&self) -> Vec<Device> {
        self.names.keys().filter(|device| !self.wholes.contains_key(device)).copied().collect()
    }

    /// This device, then those that lie over it, then those under it.
    pub(super) fn around(&self, device: Device) -> Vec<Device> {
        let mut found = vec![device];
        self.walk(device, &mut found, |(over, below), at| (below == at).then_some(over));
        self.walk(device, &mut found, |(over, below), at| (over == at).then_some(below));
        found
    }

    fn walk(
        &self,
        from: Device,
        found: &mut Vec<Device>,
        step: impl Fn((Device, Device), Device) -> Option<Device>,
    ) {
        let (mut seen, mut next) = (BTreeSet::from([from]), vec![from]);
        while let Some(at) = next.pop() {
            for device in self.over.iter().filter_map(|pair| step(*pair, at)) {
                if seen.insert(device) {
                    next.push(device);
                    if !found.contains(&device) {
                        found.push(device);
                    }
                }
            }
        }
    }

    /// Whether it hands on to one of these, and whether one of these hands on to it.
    pub(super) fn hands(&self, device: Device, among: &[Device]) -> (bool, bool) {
        let has = |pair: &dyn Fn(&(Device, Device)) -> Option<Device>| {
            self.hands_on.iter().filter_map(pair).any(|other| among.contains(&other))
        };
        let above = has(&|(over, below)| (*over == device).then_some(*below));
        let below = has(&|(over, below)| (*below == device).then_some(*over));
        (above, below)
    }
}

/// The folders in a folder; none if it is not there.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

/// A `dev` file: `7:0`.
fn numbers(file: &Path) -> Option<Device> {
    device(fs::read(file).ok()?.trim_ascii())
}

pub(super) fn device(text: &[u8]) -> Option<Device> {
    let (major, minor) = std::str::from_utf8(text).ok()?.split_once(':')?;
    Some(Device { major: major.parse().ok()?, minor: minor.parse().ok()? })
}

/// Where filesystems are mounted, as one process sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Mounts(Vec<Mounted>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Mounted {
    filesystem: Device,
    root: Vec<u8>,
    point: Vec<u8>,
}

impl Mounts {
    /// Reads a mountinfo; empty if it cannot be read.
    pub(super) fn read(file: &Path) -> Mounts {
        fs::read(file).map(|text| Mounts::parse(&text)).unwrap_or_default()
    }

    /// Reads the text of a mountinfo.
    pub(super) fn parse(text: &[u8]) -> Mounts {
        let mounted = mounts(text).flatten().filter_map(|mount| {
            Some(Mounted {
                filesystem: device(mount.device)?,
                root: plain(mount.root),
                point: plain(mount.point),
            })
        });
        Mounts(mounted.collect())
    }

    /// Whether this filesystem is mounted.
    pub(super) fn has(&self, filesystem: Device) -> bool {
        self.0.iter().any(|mounted| mounted.filesystem == filesystem)
    }

    /// The filesystem that a path leads to.
    fn filesystem_of(&self, path: &Path) -> Option<Device> {
        let path = path.as_os_str().as_bytes();
        let above = self.0.iter().filter(|mounted| below(path, &mounted.point).is_some());
        // Of those on the same point the last one covers the others.
        above.max_by_key(|mounted| mounted.point.len()).map(|mounted| mounted.filesystem)
    }

    /// A path from the root of its filesystem as one from the root of all: where the most of the
    /// filesystem is mounted, if it is mounted at several places.
    pub(super) fn path(&self, filesystem: Device, path: &str) -> Option<Box<str>> {
        let of_it = self.0.iter().filter(|mounted| mounted.filesystem == filesystem);
        let seen = of_it.filter_map(|mounted| Some((mounted, below(path.as_bytes(), &mounted.root)?)));
        let (mounted, rest) = seen.min_by_key(|(mounted, _)| mounted.root.len())?;
        let point = mounted.point.strip_suffix(b"/").unwrap_or(&mounted.point);
        let whole = [point, rest].concat();
        let whole = if whole.is_empty() { b"/".to_vec() } else { whole };
        Some(std::ffi::OsString::from_vec(whole).to_string_lossy().into())
    }
}

/// What of a path is below a folder, with its slash.
fn below<'p>(path: &'p [u8], folder: &[u8]) -> Option<&'p [u8]> {
    let rest = path.strip_prefix(folder.strip_suffix(b"/").unwrap_or(folder))?;
    (rest.is_empty() || rest.starts_with(b"/")).then_some(rest)
}

/// Without the octal numbers that stand for spaces, tabs, newlines and backslashes.
fn plain(escaped: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some((first, after)) = rest.split_first() {
        let number = after.first_chunk::<3>().filter(|_| *first == b'\\').and_then(octal);
        text.push(number.unwrap_or(*first));
        rest = if number.is_some() { after.get(3..).unwrap_or_default() } else { after };
    }
    text
}

fn octal(digits: &[u8; 3]) -> Option<u8> {
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn dev(major: u32, minor: u32) -> Device {
        Device { major, minor }
    }

    const TEXT: &[u8] = b"27 1 254:0 / / rw - ext4 /dev/vda rw\n\
        40 27 7:0 / /mnt/a\\040b rw - ext4 /dev/loop0 rw\n\
        41 27 7:1 /deep/down /bind rw - xfs /dev/loop1 rw\n\
        42 27 7:1 /deep /less rw - xfs /dev/loop1 rw\n";

    #[test]
    fn a_path_is_told_from_where_the_most_of_its_filesystem_is_mounted() {
        let mounts = Mounts::parse(TEXT);
        let path = |device, path| mounts.path(device, path).map(String::from);
        assert_eq!(path(dev(254, 0), "/x/y").as_deref(), Some("/x/y"));
        assert_eq!(path(dev(7, 0), "/x").as_deref(), Some("/mnt/a b/x"));
        assert_eq!(path(dev(7, 1), "/deep/down/x").as_deref(), Some("/less/down/x"));
        assert_eq!(path(dev(7, 1), "/deeper"), None, "no part of it is mounted");
        assert_eq!(path(dev(7, 0), "/").as_deref(), Some("/mnt/a b/"));
        assert_eq!(path(dev(9, 9), "/x"), None);
        assert!(mounts.has(dev(7, 1)) && !mounts.has(dev(7, 2)));
    }

    #[test]
    fn a_file_is_on_the_filesystem_of_the_nearest_mount_above_it() {
        let mounts = Mounts::parse(TEXT);
        let of = |path: &str| mounts.filesystem_of(Path::new(path));
        assert_eq!(of("/mnt/a b/image"), Some(dev(7, 0)));
        assert_eq!(of("/mnt/a bc/image"), Some(dev(254, 0)));
        assert_eq!(of("relative"), None);
    }

    #[test]
    fn octal_numbers_are_read_and_what_only_looks_like_one_is_left() {
        assert_eq!(plain(br"a\040b\134c\011"), b"a b\\c\t");
        assert_eq!(plain(br"\04\9990\"), br"\04\9990\");
    }

    #[test]
    fn what_lies_over_and_under_a_device_is_found_through_partitions_and_loops() {
        let folder = std::env::temp_dir().join(format!("onset-disks-{}", std::process::id()));
        let block = folder.join("block");
        let disk = |name: &str, dev: &str| {
            fs::create_dir_all(block.join(name)).expect("a folder");
            fs::write(block.join(name).join("dev"), format!("{dev}\n")).expect("a file");
        };
        disk("sda", "8:0");
        disk("sda/sda1", "8:1");
        fs::write(block.join("sda/sda1/partition"), "1\n").expect("a file");
        disk("sdb", "8:16");
        disk("dm-0", "253:0");
        disk("dm-0/slaves/sda1", "8:1");
        disk("loop0", "7:0");
        fs::create_dir_all(block.join("loop0/loop")).expect("a folder");
        fs::write(block.join("loop0/loop/backing_file"), "/data/image\n").expect("a file");
        let disks = Disks::read(&folder, &Mounts::parse(b"9 1 253:0 / /data rw - ext4 /dev/dm-0 rw\n"));
        fs::remove_dir_all(&folder).expect("it was there");
        let around = |device| disks.around(device);
        assert_eq!(around(dev(8, 0)), [dev(8, 0), dev(253, 0), dev(7, 0)]);
        assert_eq!(around(dev(253, 0)), [dev(253, 0), dev(7, 0), dev(8, 0)]);
        assert_eq!(around(dev(8, 16)), [dev(8, 16)]);
        assert_eq!(disks.whole(dev(8, 1)), dev(8, 0));
        assert_eq!(disks.name_of(dev(8, 1)), Some("sda1"));
        assert_eq!(disks.all(), [dev(7, 0), dev(8, 0), dev(8, 16), dev(253, 0)]);
        let all = around(dev(253, 0));
        assert_eq!(disks.hands(dev(253, 0), &all), (true, false), "the loop device has a file");
        assert_eq!(disks.hands(dev(8, 0), &all), (false, true));
        assert_eq!(disks.hands(dev(8, 0), &[dev(8, 0)]), (false, false));
    }
}

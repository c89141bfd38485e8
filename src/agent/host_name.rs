//! The host's name in documents: what the config says, else the kernel's. That may be set long after the agent's
//! start, by cloud-init or a person, and the kernel tells of it: /proc/sys/kernel/hostname can be polled.

use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;

use crate::sys;

/// The kernel's names are of 64 bytes; what a config says may be longer.
const ROOM: usize = 256;

/// The name, and the file that tells when it changes.
#[derive(Debug)]
pub(super) struct HostName {
    name: String,
    /// `None`: the config says the name, or nobody tells of changes.
    file: Option<File>,
    fixed: bool,
}

impl HostName {
    /// What the config says; empty: as the kernel says. The file is opened before the name is read: a change
    /// in between is told.
    pub(super) fn new(configured: &str, proc: &Path) -> HostName {
        let fixed = !configured.is_empty();
        let file = if fixed { None } else { File::open(proc.join("sys/kernel/hostname")).ok() };
        let mut name = String::with_capacity(ROOM.max(configured.len()));
        name.push_str(configured);
        let mut host = HostName { name, file, fixed };
        host.read();
        host
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// For the poll, with priority interest.
    pub(super) fn fd(&self) -> Option<RawFd> {
        self.file.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// Takes the kernel's name, which may be another by now. A kernel that tells none leaves the one before.
    pub(super) fn follow(&mut self) {
        if self.read() {
            eprintln!("onset: the host's name is {} from now on", self.name);
        }
    }

    /// Whether it is another one. Takes no memory: the kernel's fits in what is set aside.
    fn read(&mut self) -> bool {
        !self.fixed
            && sys::hostname(|name| {
                let other = !name.is_empty() && name != self.name;
                if other {
                    self.name.clear();
                    self.name.push_str(name);
                }
                other
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configs_name_counts_more_than_the_kernels() {
        let mut host = HostName::new("node-1", Path::new("/proc"));
        host.follow();
        assert_eq!((host.name(), host.fd()), ("node-1", None));
    }

    #[test]
    fn without_a_name_in_the_config_it_is_the_kernels() {
        let host = HostName::new("", Path::new("/proc"));
        let kernels = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("the kernel has one");
        assert_eq!(host.name(), kernels.trim());
        assert!(host.fd().is_some());
        let blind = HostName::new("", Path::new("/nowhere"));
        assert_eq!((blind.name(), blind.fd()), (kernels.trim(), None), "it is asked at SIGHUP then");
    }
}

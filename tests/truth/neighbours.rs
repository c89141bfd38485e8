//! Whoever else is on the machine takes CPU: the containers of this test outweigh them, but leave enough
//! for the kernel threads that serve their disks.

use std::fs;
use std::path::{Path, PathBuf};

/// The folder of all these containers, of v1 or of v2, and eight times the usual weight.
const FILES: [(&str, &str); 2] =
    [("/sys/fs/cgroup/cpu/docker/cpu.shares", "8192"), ("/sys/fs/cgroup/docker/cpu.weight", "800")];

/// What was in the file before, put back when this is dropped.
pub struct Outweighed(PathBuf, String);

impl Outweighed {
    /// Of a machine on which there is a container.
    pub fn new() -> Outweighed {
        let (file, weight) = FILES.into_iter().find(|(file, _)| Path::new(file).exists()).unwrap();
        let before = fs::read_to_string(file).unwrap();
        fs::write(file, weight).unwrap();
        Outweighed(file.into(), before)
    }
}

impl Drop for Outweighed {
    fn drop(&mut self) {
        let _ = fs::write(&self.0, &self.1);
    }
}

//! An ext4 on a loop device that can be frozen: whoever writes to it then is in D state until it
//! is thawed, which happens on drop, whatever else fails.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::cgroup::Cgroup;
use crate::rig::{Folder, KillOnDrop, SOON, await_that, command, done, run, start};

pub struct Disk {
    mount: PathBuf,
    frozen: bool,
    /// Those that are stuck on it: it is thawed before they are waited for.
    writers: Vec<KillOnDrop>,
    // Dropped last: the image is in it.
    _folder: Folder,
}

impl Disk {
    pub fn new() -> Disk {
        Disk::of_size(64 << 20)
    }

    pub fn of_size(bytes: u64) -> Disk {
        let folder = Folder::new();
        let image = folder.0.join("image");
        Disk::of(folder, &image, bytes)
    }

    /// One whose image is a file on another disk: while that one is frozen, this one is slow.
    pub fn on(other: &Disk) -> Disk {
        Disk::of(Folder::new(), &other.mount.join("image"), 32 << 20)
    }

    fn of(folder: Folder, image: &Path, bytes: u64) -> Disk {
        let mount = folder.0.join("mount");
        std::fs::create_dir(&mount).unwrap();
        std::fs::File::create(image).unwrap().set_len(bytes).unwrap();
        done(command("mkfs.ext4").arg("-q").arg(image));
        done(command("mount").args(["-o", "loop"]).arg(image).arg(&mount));
        Disk { mount, frozen: false, writers: Vec::new(), _folder: folder }
    }

    pub fn path(&self) -> &Path {
        &self.mount
    }

    /// The loop device that it is on.
    pub fn device(&self) -> String {
        let source = done(command("findmnt").args(["-no", "SOURCE"]).arg(&self.mount));
        source.trim().trim_start_matches("/dev/").to_owned()
    }

    /// Four processes that overwrite a file each, and wait for the disk after every block.
    pub fn saturate(&self, seconds: u32) -> Command {
        let mut fio = command("fio");
        fio.arg(format!("--directory={}", self.mount.display())).arg(format!("--runtime={seconds}")).args([
            "--name=w",
            "--size=8m",
            "--rw=randwrite",
            "--bs=4k",
            "--ioengine=sync",
            "--sync=1",
            "--numjobs=4",
            "--time_based",
            "--minimal",
        ]);
        fio.stdout(Stdio::null());
        fio
    }

    pub fn freeze(&mut self) {
        done(command("fsfreeze").arg("-f").arg(&self.mount));
        self.frozen = true;
    }

    pub fn thaw(&mut self) {
        if std::mem::take(&mut self.frozen) {
            done(command("fsfreeze").arg("-u").arg(&self.mount));
        }
    }

    /// Starts a process in this cgroup that writes to the frozen disk, and waits until it is stuck.
    /// Returns its pid and when it was seen to be stuck, in milliseconds since 1970.
    pub fn stick(&mut self, cgroup: &Cgroup, name: &str) -> (u32, u64) {
        assert!(self.frozen);
        let mut sh = command("sh");
        sh.arg("-c").arg("echo x > \"$0\"").arg(self.mount.join(name));
        let writer = cgroup.start(&mut sh);
        let pid = writer.0.id();
        // Into our hands before anything can fail.
        self.writers.push(writer);
        await_that("a writer in D state", SOON, || (state(pid) == Some('D')).then_some(()));
        (pid, millis())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.frozen {
            run(command("fsfreeze").arg("-u").arg(&self.mount));
        }
        self.writers.clear();
        // A writer may need a moment to be gone.
        for _ in 0..100 {
            if run(command("umount").arg(&self.mount)).status.success() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        run(command("umount").arg("-l").arg(&self.mount));
    }
}

/// Freezes a disk again and again, for most of the time, until it is dropped.
pub struct Stutter {
    shell: Option<KillOnDrop>,
    mount: PathBuf,
}

impl Stutter {
    pub fn of(disk: &Disk) -> Stutter {
        let words = "while :; do fsfreeze -f \"$0\"; sleep 0.4; fsfreeze -u \"$0\"; done";
        let shell = start(command("sh").arg("-c").arg(words).arg(&disk.mount));
        Stutter { shell: Some(shell), mount: disk.mount.clone() }
    }
}

impl Drop for Stutter {
    fn drop(&mut self) {
        // First whoever freezes it, then the frost: whoever is stuck must not wait for ever.
        self.shell = None;
        run(command("fsfreeze").arg("-u").arg(&self.mount));
    }
}

/// The state letter of a process, as ps(1) shows it.
fn state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

fn millis() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

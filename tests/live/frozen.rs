//! An ext4 on a loop device that can be frozen: whoever writes to it then is in D state until it
//! is thawed, which happens on drop, whatever else fails.

use std::path::PathBuf;

use crate::rig::{Folder, Killed, command, done, run};

pub struct Disk {
    mount: PathBuf,
    frozen: bool,
    // Dropped last: the image is in it.
    _folder: Folder,
}

impl Disk {
    pub fn new() -> Disk {
        let folder = Folder::new();
        let image = folder.0.join("image");
        let mount = folder.0.join("mount");
        std::fs::create_dir(&mount).unwrap();
        std::fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
        done(command("mkfs.ext4").arg("-q").arg(&image));
        done(command("mount").args(["-o", "loop"]).arg(&image).arg(&mount));
        Disk { mount, frozen: false, _folder: folder }
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

    /// A command that writes to it, and is stuck at once if it is frozen.
    pub fn writer(&self, name: &str) -> std::process::Command {
        let mut sh = command("sh");
        sh.arg("-c").arg("echo x > \"$0\"").arg(self.mount.join(name));
        sh
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.frozen {
            run(command("fsfreeze").arg("-u").arg(&self.mount));
        }
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

/// The state letter of a process, as ps(1) shows it.
pub fn state(process: &Killed) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.0.id())).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

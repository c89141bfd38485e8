//! A cgroup that looks like a container's, in every hierarchy that counts. Its processes die with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::rig::{self, KillOnDrop, await_that};

const ROOT: &str = "/sys/fs/cgroup";

pub struct Cgroup {
    pub id: String,
    path: String,
    folders: Vec<PathBuf>,
}

impl Cgroup {
    /// One of docker's shape, with an id of its own.
    pub fn new(word: &str) -> Cgroup {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let word: u64 = word.bytes().fold(7, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
        let id = format!("{word:016x}{:024x}{number:024x}", std::process::id());
        Cgroup::at(&format!("docker/{id}"), &id)
    }

    /// One at this path below the hierarchies' roots. The folders above it are left behind.
    pub fn at(path: &str, id: &str) -> Cgroup {
        let mut folders = Vec::new();
        for controller in ["cpu", "cpuacct", "memory", "unified", "."] {
            let root = Path::new(ROOT).join(controller);
            let right = match controller {
                "." => root.join("cgroup.controllers").exists(),
                "unified" => root.join("cgroup.procs").exists(),
                _ => root.join("tasks").exists(),
            };
            if right {
                let folder = root.join(path);
                fs::create_dir_all(&folder).unwrap();
                if controller == "." {
                    delegate(&root, &folder);
                }
                folders.push(folder);
            }
        }
        assert!(!folders.is_empty(), "no cgroup hierarchy under {ROOT}");
        Cgroup { id: id.to_owned(), path: format!("/{path}"), folders }
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    /// Writes a v1 file where there is one.
    pub fn write(&self, file: &str, value: &str) -> bool {
        let found = self.folders.iter().map(|folder| folder.join(file)).find(|path| path.exists());
        found.is_some_and(|path| fs::write(path, value).is_ok())
    }

    /// A file of its own, in whichever hierarchy has it.
    pub fn read(&self, file: &str) -> Option<String> {
        self.folders.iter().find_map(|folder| fs::read_to_string(folder.join(file)).ok())
    }

    /// Holds it to a share of one CPU.
    pub fn quota(&self, percent: u32) {
        let us = percent * 1000;
        assert!(
            self.write("cpu.cfs_quota_us", &us.to_string()) || self.write("cpu.max", &format!("{us} 100000"))
        );
    }

    /// Starts a command that is in this cgroup from its first instruction on.
    pub fn start(&self, command: &mut Command) -> KillOnDrop {
        self.hold(command);
        rig::start(command)
    }

    /// From now on this command is in this cgroup when it starts.
    pub fn hold(&self, command: &mut Command) {
        use std::os::unix::process::CommandExt;
        let files: Vec<PathBuf> = self.folders.iter().map(|folder| folder.join("cgroup.procs")).collect();
        // SAFETY: the child only writes to files before it execs; no other thread's lock is taken.
        unsafe {
            command.pre_exec(move || files.iter().try_for_each(|file| fs::write(file, "0")));
        }
    }

    /// Resident memory of its processes, in bytes.
    pub fn rss(&self) -> u64 {
        let mut pids = self.pids();
        pids.sort_unstable();
        pids.dedup();
        let pages = |pid: &i32| -> Option<u64> {
            fs::read_to_string(format!("/proc/{pid}/statm")).ok()?.split(' ').nth(1)?.parse().ok()
        };
        pids.iter().filter_map(pages).sum::<u64>() * onset::sys::page_size().unwrap_or(4096)
    }

    fn pids(&self) -> Vec<i32> {
        let lists =
            self.folders.iter().filter_map(|folder| fs::read_to_string(folder.join("cgroup.procs")).ok());
        lists
            .flat_map(|list| list.lines().filter_map(|line| line.parse().ok()).collect::<Vec<i32>>())
            .collect()
    }
}

/// On v2 a cgroup has the controllers that each one above it passes on.
fn delegate(root: &Path, folder: &Path) {
    let above: Vec<&Path> = folder.ancestors().skip(1).take_while(|above| above.starts_with(root)).collect();
    for above in above.iter().rev() {
        fs::write(above.join("cgroup.subtree_control"), "+cpu +memory +io").unwrap();
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let folders = &self.folders;
        let removed = || {
            for pid in self.pids() {
                // SAFETY: takes no pointers; these processes are in a cgroup of ours.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            }
            folders.iter().all(|folder| fs::remove_dir(folder).is_ok() || !folder.exists()).then_some(())
        };
        if std::thread::panicking() {
            (0..200).any(|_| {
                std::thread::sleep(Duration::from_millis(10));
                removed().is_some()
            });
        } else {
            await_that("an empty cgroup", Duration::from_secs(10), removed);
        }
    }
}

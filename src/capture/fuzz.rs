//! What captures read of /proc and /sys, as fuzz targets: what is shown of it is fit to be shown, and
//! where the detectors read the same file, both see the same.

use super::disks::Mounts;
use super::load::release_of;
use super::{proc_task, resident};
use crate::bpf::cpus;
use crate::host::cgroup::cpuset;
use crate::host::proc::mounts::mounts;
use crate::host::proc::task;

/// /proc/PID/task/TID/stat.
pub fn task_stat(data: &[u8]) {
    let own = proc_task::stat(data);
    assert!(own.as_ref().is_none_or(|own| is_plain(&own.comm)));
    // Between fields the kernel writes single spaces.
    let odd = data.rsplit(|byte| *byte == b')').next().unwrap_or_default().trim_ascii();
    let odd = odd.iter().any(|byte| byte.is_ascii_whitespace() && *byte != b' ');
    if let Some(task) = task::parse(data).filter(|_| !odd && data.iter().all(u8::is_ascii)) {
        let Some(own) = own else { panic!("the detectors take it") };
        assert_eq!((own.state, own.comm.len()), (task.state, task.comm.len()));
    }
}

/// /proc/PID/task/TID/cgroup: what is found stands on one of its lines.
pub fn task_cgroup(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for unified in [false, true] {
        let found = proc_task::cgroup(&text, unified);
        assert!(found.is_none_or(|path| text.lines().any(|line| line.ends_with(path))));
    }
}

/// /proc/PID/task/TID/status.
pub fn task_status(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let switches = proc_task::switches(&text);
    // The first line of each kind counts, whatever comes after it.
    let more = format!("{text}\nvoluntary_ctxt_switches:\t5\nnonvoluntary_ctxt_switches:\t7\n");
    let now = proc_task::switches(&more);
    assert!(switches.is_none_or(|count| now == Some(count)), "{switches:?} became {now:?}");
    assert!(text.contains("voluntary_ctxt_switches") || now == Some(12), "{now:?}");
}

/// /proc/PID/task/TID/stack.
pub fn task_stack(data: &[u8]) {
    let frames = proc_task::stack(data);
    assert!(frames.len() <= data.split(|byte| *byte == b'\n').count());
    assert!(frames.iter().all(|frame| !frame.is_empty() && is_plain(frame)), "{frames:?}");
}

/// /proc/PID/mountinfo: the root of each mount is found where it is mounted.
pub fn mountinfo(data: &[u8]) {
    let all = Mounts::parse(data);
    for mount in mounts(data).flatten() {
        let Some(device) = super::disks::device(mount.device) else { continue };
        assert!(all.has(device));
        let Ok(root) = std::str::from_utf8(mount.root) else { continue };
        if root.starts_with('/') && !root.contains('\\') {
            let path = all.path(device, root);
            assert!(path.is_some_and(|path| !path.is_empty()), "{root} is mounted");
        }
    }
}

/// Files of one line: the CPUs that are online, the kernel's release, a process's statm.
pub fn lines(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let cpus = cpus::list(&text);
    assert!(cpus.len() <= 8192, "more than any kernel is built for");
    let small = |number: &str| number.is_empty() || number.parse::<u32>().is_ok_and(|number| number < 8192);
    if let Some(count) = cpuset::count(data)
        && count <= 8192
        && text.split(|letter: char| !letter.is_ascii_digit()).all(small)
    {
        assert_eq!(cpus.len(), count as usize, "the detectors count as many");
    }
    if let Some((major, minor)) = release_of(&text) {
        let again = format!("{major}.{minor}.0-any");
        assert_eq!(release_of(&again), Some((major, minor)));
    }
    let pages = resident::resident_pages(data);
    assert!(pages.is_none_or(|pages| text.contains(&pages.to_string())), "{pages:?} was made up");
}

fn is_plain(text: &str) -> bool {
    !text.contains(char::is_control)
}

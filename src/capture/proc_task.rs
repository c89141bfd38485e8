//! A task as /proc shows it: pure parsers of the files below /proc/PID/task/TID that can be read
//! while the task is stuck. Not among them: cmdline, maps, environ, which would hang with it.

use crate::host::TaskState;

/// What is read of a stat file (proc_pid_stat(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    /// Its name.
    pub(super) comm: Box<str>,
    /// What it does.
    pub(super) state: TaskState,
    /// When it was started, in clock ticks since boot: tells apart two that had the same id.
    pub(super) started: u64,
}

/// Reads a stat file. The name may hold anything, brackets and spaces too.
pub(super) fn stat(text: &[u8]) -> Option<Stat> {
    let open = text.iter().position(|byte| *byte == b'(')?;
    let close = text.iter().rposition(|byte| *byte == b')')?;
    let comm = plain(text.get(open + 1..close)?);
    let rest = std::str::from_utf8(text.get(close + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = match fields.next()?.as_bytes() {
        b"R" => TaskState::Running,
        b"D" => TaskState::Uninterruptible,
        b"T" | b"t" => TaskState::Stopped,
        b"Z" | b"X" | b"x" => TaskState::Dead,
        _ => TaskState::Sleeping,
    };
    // The state is field 3, the start time field 22.
    let started = fields.nth(18)?.parse().ok()?;
    Some(Stat { comm, state, started })
}

/// How often it was put on a CPU, out of its status file.
pub(super) fn switches(status: &str) -> Option<u64> {
    let count = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':').trim().parse::<u64>().ok()
    };
    Some(count("voluntary_ctxt_switches")?.wrapping_add(count("nonvoluntary_ctxt_switches")?))
}

/// Its cgroup in the hierarchy that containers are told apart in, out of its cgroup file.
pub(super) fn cgroup(text: &str, unified: bool) -> Option<&str> {
    text.lines().find_map(|line| {
        let (number, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let wanted = match unified {
            true => number == "0" && controllers.is_empty(),
            false => controllers.split(',').any(|controller| controller == "cpu"),
        };
        wanted.then_some(path)
    })
}

/// The functions of its stack file, innermost first: `[<0>] rpc_wait_bit_killable+0x1e/0x80 [sunrpc]`.
pub(super) fn stack(text: &[u8]) -> Vec<Box<str>> {
    const FRAMES_MAX: usize = 64;
    let function = |line: &[u8]| {
        let line = line.strip_prefix(b"[<")?;
        let end = line.windows(3).position(|bytes| bytes == b">] ")?;
        let place = line.get(end + 3..)?.trim_ascii();
        let name = place.split(|byte| *byte == b'+').next()?;
        let module = place.iter().rposition(|byte| *byte == b'[').and_then(|at| place.get(at..));
        (!name.is_empty()).then(|| match module {
            Some(module) => format!("{} {}", plain(name), plain(module)).into_boxed_str(),
            None => plain(name),
        })
    };
    text.split(|byte| *byte == b'\n').filter_map(function).take(FRAMES_MAX).collect()
}

fn plain(raw: &[u8]) -> Box<str> {
    let text = String::from_utf8_lossy(raw);
    text.chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect::<String>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_brackets_spaces_and_what_looks_like_a_state() {
        let text = b"42 (a) R (b\n) D 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 11 12\n";
        let want = Stat { comm: "a) R (b?".into(), state: TaskState::Uninterruptible, started: 98_765 };
        assert_eq!(stat(text), Some(want));
    }

    #[test]
    fn what_is_no_stat_file_is_refused() {
        for text in [&b""[..], b"1", b"1 (x", b"1 )x( R", b"1 (x) D 1 2", b"1 (x) D \xff", b")("] {
            assert_eq!(stat(text), None, "{text:?}");
        }
    }

    #[test]
    fn this_very_thread_is_running() {
        let text = std::fs::read("/proc/thread-self/stat").expect("procfs");
        let stat = stat(&text).expect("a stat file");
        assert_eq!(stat.state, TaskState::Running);
        assert!(stat.started > 0);
        let status = std::fs::read_to_string("/proc/thread-self/status").expect("procfs");
        assert!(switches(&status).is_some());
    }

    #[test]
    fn both_kinds_of_switches_count() {
        assert_eq!(
            switches("Name:\tx\nvoluntary_ctxt_switches:\t7\nnonvoluntary_ctxt_switches:\t3\n"),
            Some(10)
        );
        assert_eq!(switches("voluntary_ctxt_switches:\t7\n"), None);
    }

    #[test]
    fn a_cgroup_is_read_in_the_hierarchy_asked_for() {
        let text = "12:cpu,cpuacct:/kubepods/pod1/c:1\n5:cpuset:/set\n1:name=systemd:/s\n0::/v2/x\n";
        assert_eq!(cgroup(text, false), Some("/kubepods/pod1/c:1"));
        assert_eq!(cgroup(text, true), Some("/v2/x"));
        assert_eq!(cgroup("5:cpuset:/set\n", false), None);
        assert_eq!(cgroup("garbage\n1\n:\n", true), None);
    }

    #[test]
    fn a_stack_gives_names_with_their_modules() {
        let text = b"[<0>] rpc_wait_bit_killable+0x1e/0x80 [sunrpc]\n[<0>] __wait_on_bit+0x2a/0xa0\n[<0>]\nnoise\n[<0>] \n";
        let names: Vec<_> = stack(text).into_iter().map(String::from).collect();
        assert_eq!(names, ["rpc_wait_bit_killable [sunrpc]", "__wait_on_bit"]);
    }
}

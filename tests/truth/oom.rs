//! Kills for want of memory, against the kernel's own count: also of one who was dying already, which the
//! kernel does not kill.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::accounts::kills;
use crate::cgroup::Cgroup;
use crate::rig::{KillOnDrop, Lines, SOON, await_that, command};
use crate::row::{Bound, Measured, Row, measured, row};
use crate::stage::Window;

const KILLS: &str = "OOM kills of a container";
const VICTIMS: &str = "victims of OOM kills that were none";

pub const ROWS: [Row; 2] = [
    row(KILLS, "oom_kill of memory.oom_control", "kills", Bound::Exact),
    row(VICTIMS, "who died of SIGKILL", "processes", Bound::Exact),
];

const MIB: u64 = 1 << 20;

fn eater(window: &Window<'_>, cgroup: &Cgroup, mib: u32) -> KillOnDrop {
    cgroup.start(command(&window.stage.programs.eat).arg(mib.to_string()).stdout(Stdio::piped()))
}

fn fed(eater: &mut KillOnDrop) {
    let said = Lines::of(eater.0.stdout.take().unwrap());
    said.wait("word that it is fed", SOON, |line| (line == "done").then_some(()));
}

/// Runs one until it is killed. Its id.
fn killed(window: &Window<'_>, cgroup: &Cgroup) -> u32 {
    use std::os::unix::process::ExitStatusExt;
    let mut eater = eater(window, cgroup, 256);
    let status = await_that("the kill", SOON, || eater.0.try_wait().unwrap());
    assert_eq!(status.signal(), Some(libc::SIGKILL));
    eater.0.id()
}

/// A freezer of v1, in which a process that was killed stays until it is thawed.
struct Freezer(PathBuf);

impl Freezer {
    fn new(cgroup: &Cgroup) -> Option<Freezer> {
        let root = Path::new("/sys/fs/cgroup/freezer");
        let folder = root.join(&cgroup.path()[1..]);
        root.join("cgroup.procs").exists().then(|| fs::create_dir_all(&folder).unwrap())?;
        Some(Freezer(folder))
    }

    fn freeze(&self, pid: u32) {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).unwrap();
        fs::write(self.0.join("freezer.state"), "FROZEN").unwrap();
        await_that("the frost", SOON, || {
            (fs::read_to_string(self.0.join("freezer.state")).unwrap() == "FROZEN\n").then_some(())
        });
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("freezer.state"), "THAWED");
        for _ in 0..100 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

/// Someone wants memory while another is dying, and gets it: nobody is killed for it.
fn dying(window: &Window<'_>, cgroup: &Cgroup) {
    let Some(freezer) = Freezer::new(cgroup) else {
        println!("no cgroup v1 freezer here: a victim that was dying before is not tried");
        return;
    };
    let before = kills(cgroup);
    let mut victim = eater(window, cgroup, 40);
    fed(&mut victim);
    freezer.freeze(victim.0.id());
    // SAFETY: takes no pointers; the child is ours and not yet waited for.
    assert_eq!(unsafe { libc::kill(victim.0.id().cast_signed(), libc::SIGKILL) }, 0);
    assert!(matches!(victim.0.try_wait(), Ok(None)), "it is frozen");
    let mut other = eater(window, cgroup, 36);
    fed(&mut other);
    assert_eq!(kills(cgroup), before, "the kernel counts no kill");
}

pub fn measure(window: &Window<'_>) -> Vec<Measured> {
    let cgroup = Cgroup::new("oom");
    let bytes = (64 * MIB).to_string();
    assert!(cgroup.write("memory.limit_in_bytes", &bytes) || cgroup.write("memory.max", &bytes));
    // Without this it would be swapped out instead, where there is swap.
    let _ = cgroup.write("memory.swappiness", "0") || cgroup.write("memory.swap.max", "0");
    window.known(&cgroup);
    window.begin();
    dying(window, &cgroup);
    let pids: Vec<u32> = (0..3).map(|_| killed(window, &cgroup)).collect();
    let agent = &window.stage.agent;
    let last = pids[pids.len() - 1];
    // They are told in their order.
    agent.event("the last kill", SOON, |event| event["tracer_data"]["victim"]["pid"] == last);
    let events = agent.events();
    let told: Vec<_> = events
        .iter()
        .filter(|event| event["tracer_name"] == "oom" && event["container_id"] == *cgroup.id)
        .collect();
    let wrong =
        told.iter().filter(|event| pids.iter().all(|pid| event["tracer_data"]["victim"]["pid"] != *pid));
    vec![
        measured(VICTIMS, wrong.count() as f64, 0.0),
        measured(KILLS, told.len() as f64, kills(&cgroup) as f64),
    ]
}

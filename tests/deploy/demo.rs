//! `make demo`: it shows its own container, whoever else is busy on the host.

use crate::cgroup::Cgroup;
use crate::file;
use crate::rig::{ONSET, command, done, root};

#[test]
fn the_demo_shows_its_own_container_beside_busy_ones() {
    if !root("the demo") {
        return;
    }
    // Each second or so it leaps to its limit, from before the demo's own program does.
    let stranger = Cgroup::new("stranger");
    stranger.quota(50);
    let burst = "while :; do sleep 1.2; timeout 1.3 sh -c 'while :; do :; done'; done";
    let _busy = stranger.start(command("sh").args(["-c", burst]));
    let said = done(command(file("deploy/demo/run")).arg(ONSET));
    let (_, shown) = said.split_once("== Caught: ").unwrap_or_else(|| panic!("{said}"));
    assert!(shown.contains("cpuidle") && !shown.contains(&stranger.id), "{shown}");
    let top = shown.split("top_processes").nth(1).unwrap_or_else(|| panic!("{shown}"));
    assert!(top.lines().take(6).any(|line| line.contains("shop")), "its program is named: {shown}");
}

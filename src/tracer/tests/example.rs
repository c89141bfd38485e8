//! The example of docs/how-to-add-a-tracer.md: that it works, and that the text shows what is compiled.

use super::*;
use crate::host::HostCpu;
use crate::tracer::{iowait, play::Host};

#[test]
fn the_example_fires_where_its_rule_says_and_tells_who_is_blocked() {
    let mut play = Play::of(&iowait::SPEC, "[tracer.iowait]\npercent = 30\n", SIZE);
    let mut cpu = HostCpu { cpus: 10, ..HostCpu::default() };
    let mut pass = |play: &mut Play, iowait: u64| {
        cpu.times.iowait += Duration::from_secs(iowait);
        cpu.times.idle += Duration::from_secs(100 - iowait);
        play.pass(TEN);
        play.tick(&Host { cpu: Some(cpu), ..Host::default() }, &[]);
    };
    for iowait in [0, 20, 30, 5] {
        pass(&mut play, iowait);
    }
    assert!(play.seen.asked.is_empty(), "30 is not past 30");
    pass(&mut play, 60);
    assert_eq!(play.seen.asked.len(), 1);
    assert!(play.scrape().contains("onset_host_iowait_ratio 0.6\n"));
    assert_eq!(answer_all(&mut play), [Some(Trigger::Surge)]);
    let (_, document) = &play.seen.events[0];
    assert_eq!(document["tracer_data"]["iowait_percent"], 60.0);
    assert_eq!(document["tracer_data"]["tasks"][0]["comm"], "dd");
}

#[test]
fn the_text_shows_the_code_that_is_compiled() {
    let text = include_str!("../../../docs/how-to-add-a-tracer.md");
    let code = include_str!("../../../docs/example/iowait.rs");
    let blocks: Vec<&str> =
        text.split("```rust\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(blocks.len() >= 4, "{}", blocks.len());
    for block in blocks {
        assert!(code.contains(block.trim_end()), "not in docs/example/iowait.rs:\n{block}");
    }
}

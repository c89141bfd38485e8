//! An agent that ships, and a log that was written before it came.

use std::path::{Path, PathBuf};
use std::time::Duration;

use onset::control::{self, ControlRequest, Outcome};
use onset::log::Writer;
use serde_json::{Value, json};

use crate::rig::{self, Agent, Folder, SOON, only};

/// A config that ships to `url`, with all tracers off but one that is asked by hand.
pub fn config(url: &str, more: &str) -> String {
    format!(
        "[elasticsearch]\nurl = \"{url}\"\nflush = \"50ms\"\nretry = \"500ms\"\n{more}\n{}",
        only("dload", "every = \"1h\"")
    )
}

/// Has the agent make so many events. Returns how many it said that it kept.
pub fn events(agent: &Agent, count: usize) -> usize {
    events_by(&socket(agent), count)
}

/// Where the agent is asked.
pub fn socket(agent: &Agent) -> PathBuf {
    agent.folder.0.join("socket")
}

/// As `events`, for other threads.
pub fn events_by(socket: &Path, count: usize) -> usize {
    let request = ControlRequest::Trigger { tracer: "dload".into(), container: None, seconds: None };
    let kept = |reply: String| matches!(serde_json::from_str(&reply), Ok(Outcome::Id(_)));
    (0..count).filter(|_| control::ask(socket, &request, SOON).is_ok_and(kept)).count()
}

/// Writes so many documents into a log, before any agent runs on it. Returns their ids.
pub fn write(config: &Path, count: usize) -> Vec<String> {
    let config = onset::config::Config::load(Some(config), onset::tracer::TRACERS).unwrap();
    let (mut writer, _) = Writer::open(&config.log).unwrap();
    (0..count)
        .map(|number| {
            let text = |id: &dyn std::fmt::Display| document(number, &id.to_string()).to_string();
            loop {
                let appended = writer.append(|id, to| {
                    let text = text(&id);
                    to.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
                    Some(text.len())
                });
                // A busy disk may not have the next segment yet.
                if let Ok(Some(id)) = appended {
                    return id.to_string();
                }
            }
        })
        .collect()
}

/// About two kilobytes, as of an event with a few stacks.
pub fn document(number: usize, id: &str) -> Value {
    let frame = |level: usize| json!({ "level": level, "value": number % 97, "self": level, "label": format!("function_{}", (number * 31 + level) % 977) });
    json!({
        "@timestamp": "2026-11-23T16:46:53.007Z", "hostname": "node-7", "region": "lab", "time": "2026-11-23T16:46:53.007Z",
        "container_id": format!("{:064x}", number % 200), "tracer_name": "cpuidle", "tracer_id": id,
        "tracer_time": "2026-11-23T16:46:53.007Z", "tracer_type": "autotracing", "onset_version": "0.1.0",
        "tracer_data": { "trigger": "surge", "duration_ms": 10_000, "lost_samples": 0, "samples": number, "flamedata": (0..24).map(frame).collect::<Vec<_>>() },
    })
}

/// A folder with a config that ships, and no agent yet.
pub fn folder(url: &str, top: &str, more: &str) -> (Folder, PathBuf) {
    let folder = Folder::new();
    let config = rig::config(&folder, top, &config(url, more));
    (folder, config)
}

/// Waits until all is shipped.
pub fn shipped(agent: &Agent, within: Duration) {
    rig::await_that("all to be shipped", within, || {
        std::thread::sleep(Duration::from_millis(50));
        (agent.metric("onset_ship_lag_records") == Some(0.0)).then_some(())
    });
}

/// Documents by outcome: created, duplicate, rejected.
pub fn outcomes(agent: &Agent) -> [f64; 3] {
    ["created", "duplicate", "rejected"]
        .map(|outcome| agent.metric(&format!("onset_ship_documents_total{{outcome=\"{outcome}\"}}")).unwrap())
}

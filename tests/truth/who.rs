//! Whose: the names of a container, and which processes are in it.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};

use crate::cgroup::Cgroup;
use crate::rig::{SOON, await_that};
use crate::row::{Bound, Measured, Row, measured, row};
use crate::stage::Window;

const NAMES: &str = "id, path and host name of a container: wrong";
const RENAMED: &str = "name of a container that was renamed: wrong";
const PROCESSES: &str = "processes told of another container, or not told";

pub const ROWS: [Row; 3] = [
    row(NAMES, "its cgroup, and docker's config.v2.json", "names", Bound::Exact),
    row(RENAMED, "docker's config.v2.json", "names", Bound::Exact),
    row(PROCESSES, "who was started in it", "processes", Bound::Exact),
];

/// What the application calls itself is another name.
const HOST: &str = "host-of-its-own";

/// A container as docker describes it.
pub struct Described<'w> {
    window: &'w Window<'w>,
    cgroup: &'w Cgroup,
}

impl<'w> Described<'w> {
    pub fn new(window: &'w Window<'w>, cgroup: &'w Cgroup) -> Described<'w> {
        let described = Described { window, cgroup };
        described.write("old-name");
        described
    }

    fn new_name(&self) -> String {
        format!("new-name-{}", self.window.round)
    }

    /// Gives it another name, once its first is known.
    pub fn rename(&self) {
        let id = &self.cgroup.id;
        let label = format!("container_id=\"{id}\",container=\"old-name\"");
        let agent = &self.window.stage.agent;
        await_that("its name to be known", SOON, || agent.get("/metrics").1.contains(&label).then_some(()));
        self.write(&self.new_name());
    }

    /// Writes it anew beside the old one, as docker does.
    fn write(&self, name: &str) {
        let folder = self.window.stage.docker.0.join("containers").join(&self.cgroup.id);
        fs::create_dir_all(&folder).unwrap();
        let config = json!({
            "ID": self.cgroup.id,
            "Name": format!("/{name}"),
            "State": { "Running": true },
            "Config": { "Hostname": HOST, "Env": ["HOSTNAME=application.example"], "Labels": {} },
        });
        fs::write(folder.join(".new"), config.to_string()).unwrap();
        fs::rename(folder.join(".new"), folder.join("config.v2.json")).unwrap();
    }

    /// What an event about it says, where these processes are all that are in it.
    pub fn told(&self, event: &Value, pids: &[u32]) -> Vec<Measured> {
        let other = |field: &str, truth: &str| {
            if event[field] != *truth {
                println!("WRONG {field}: {} for {truth}", event[field]);
            }
            f64::from(u8::from(event[field] != *truth))
        };
        let wrong = other("container_id", &self.cgroup.id)
            + other("container_hostname", HOST)
            + other("cgroup_path", self.cgroup.path());
        let told = event["tracer_data"]["top_memory_usage"].as_array().unwrap();
        let told: BTreeSet<u64> = told.iter().map(|row| row["pid"].as_u64().unwrap()).collect();
        let truth: BTreeSet<u64> = pids.iter().map(|pid| u64::from(*pid)).collect();
        vec![
            measured(NAMES, wrong, 0.0),
            measured(RENAMED, other("container_name", &self.new_name()), 0.0),
            measured(PROCESSES, told.symmetric_difference(&truth).count() as f64, 0.0),
        ]
    }
}

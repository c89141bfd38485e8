//! Whose: the names of a container, also of one that is renamed, and which processes are in it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cgroup::Cgroup;
use crate::rig::{Agent, SOON, await_that};
use crate::row::{Bound, Measured, Row, measured, row};
use crate::stage::Window;

const NAMES: &str = "id, name, host name and path of a container: wrong";
const RENAMED: &str = "a container's name, a minute after it was renamed: wrong";
const PROCESSES: &str = "processes told of another container, or not told";

pub const ROWS: [Row; 3] = [
    row(NAMES, "its cgroup, and docker's config.v2.json", "names", Bound::Exact),
    row(RENAMED, "docker's config.v2.json", "names", Bound::Exact),
    row(PROCESSES, "who was started in it", "processes", Bound::Exact),
];

const NAME: &str = "web";

/// What the application calls itself is another name.
const HOST: &str = "host-of-its-own";

/// An older name than this is wrong.
const FRESH: Duration = Duration::from_secs(60);

/// Writes what docker writes of a container, anew beside what was there, as docker does.
pub fn describe(docker: &Path, cgroup: &Cgroup, name: &str) {
    let folder = docker.join("containers").join(&cgroup.id);
    fs::create_dir_all(&folder).unwrap();
    let config = json!({
        "ID": cgroup.id,
        "Name": format!("/{name}"),
        "State": { "Running": true },
        "Config": { "Hostname": HOST, "Env": ["HOSTNAME=application.example"], "Labels": {} },
    });
    fs::write(folder.join(".new"), config.to_string()).unwrap();
    fs::rename(folder.join(".new"), folder.join("config.v2.json")).unwrap();
}

/// A container, before the agent sees it.
pub fn described(window: &Window<'_>, word: &str) -> Cgroup {
    let cgroup = Cgroup::new(word);
    describe(&window.stage.docker.0, &cgroup, NAME);
    cgroup
}

/// What an event says of a container that holds only `processes`.
pub fn told(event: &Value, cgroup: &Cgroup, pids: &[u32]) -> Vec<Measured> {
    let truth = [
        ("container_id", &*cgroup.id),
        ("container_name", NAME),
        ("container_hostname", HOST),
        ("cgroup_path", cgroup.path()),
    ];
    let wrong: Vec<_> = truth.iter().filter(|(field, truth)| event[*field] != **truth).collect();
    for (field, truth) in &wrong {
        println!("WRONG {field}: {} for {truth}", event[*field]);
    }
    let told = event["tracer_data"]["top_memory_usage"].as_array().unwrap();
    let told: BTreeSet<u64> = told.iter().map(|row| row["pid"].as_u64().unwrap()).collect();
    let pids: BTreeSet<u64> = pids.iter().map(|pid| u64::from(*pid)).collect();
    vec![
        measured(NAMES, wrong.len() as f64, 0.0),
        measured(PROCESSES, told.symmetric_difference(&pids).count() as f64, 0.0),
    ]
}

/// A container that lives as long as the agent, and gets a new name in each round.
pub struct Renamed {
    cgroup: Cgroup,
    /// Its names, and when it got them.
    names: Mutex<Vec<(Instant, String)>>,
}

impl Renamed {
    pub fn new(docker: &Path) -> Renamed {
        let renamed = Renamed { cgroup: Cgroup::new("renamed"), names: Mutex::default() };
        renamed.rename(docker);
        renamed
    }

    fn rename(&self, docker: &Path) {
        let mut names = self.names.lock().unwrap();
        let name = format!("name-{}", names.len());
        describe(docker, &self.cgroup, &name);
        names.push((Instant::now(), name));
    }

    fn name(&self, agent: &Agent) -> String {
        let label = format!("container_id=\"{}\",container=\"", self.cgroup.id);
        await_that("its name", SOON, || {
            let page = agent.get("/metrics").1;
            let (_, rest) = page.split_once(&label)?;
            rest.split('"').next().filter(|name| !name.is_empty()).map(str::to_owned)
        })
    }

    /// Those that it has had within the last minute.
    fn fresh(&self) -> Vec<String> {
        let names = self.names.lock().unwrap();
        let old = names.iter().take_while(|(at, _)| at.elapsed() > FRESH).count();
        names.iter().skip(old.saturating_sub(1)).map(|(_, name)| name.clone()).collect()
    }
}

pub fn renamed(window: &Window<'_>) -> Vec<Measured> {
    let renamed = &window.stage.renamed;
    window.begin();
    let fresh = renamed.fresh();
    let said = renamed.name(&window.stage.agent);
    let wrong = !fresh.contains(&said);
    if wrong {
        println!("WRONG container_name: {said} for one of {fresh:?}");
    }
    renamed.rename(&window.stage.docker.0);
    vec![measured(RENAMED, f64::from(u8::from(wrong)), 0.0)]
}

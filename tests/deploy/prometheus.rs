//! Alerts and dashboards: Prometheus takes every query, and every metric, label and value that they
//! name is in a real scrape; every field of the dashboard of events is in the index's template.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use crate::rig::{self, Agent, Folder, ONSET, SOON, await_that, command, done, root};
use crate::{file, read};

const ALERTS: &str = "deploy/prometheus/alerts.yml";
const BOARDS: [&str; 4] = ["hosts", "containers", "onset", "events"];

/// What Prometheus adds itself.
const TARGETS: [&str; 2] = ["job", "instance"];
const OURS: &str = "onset_";
const PROCESS: &str = "process_";

fn board(name: &str) -> Value {
    serde_json::from_str(&read(&format!("deploy/grafana/{name}.json"))).unwrap()
}

/// Every string under this key, anywhere in a dashboard.
fn strings(of: &Value, key: &str, into: &mut Vec<String>) {
    match of {
        Value::Object(map) => {
            for (name, value) in map {
                match value {
                    Value::String(text) if name == key => into.push(text.clone()),
                    value => strings(value, key, into),
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|value| strings(value, key, into)),
        _ => {}
    }
}

fn board_queries() -> Vec<String> {
    let mut all = Vec::new();
    for name in BOARDS {
        strings(&board(name), "expr", &mut all);
    }
    assert!(all.len() > 30, "{}", all.len());
    all
}

/// As Grafana would send them.
fn filled(query: &str) -> String {
    ["instance", "namespace", "pod"]
        .iter()
        .fold(query.to_owned(), |query, name| query.replace(&format!("${name}"), ".*"))
}

fn promtool(arguments: &[&str], path: &std::path::Path) -> String {
    done(Command::new("promtool").args(arguments).arg(path))
}

#[test]
fn promtool_accepts_the_alerts_and_their_tests_pass() {
    let said = promtool(&["check", "rules"], &file(ALERTS));
    assert!(said.contains("SUCCESS"), "{said}");
    let said = promtool(&["test", "rules"], &file("deploy/prometheus/alerts_test.yml"));
    assert!(said.contains("SUCCESS"), "{said}");
}

#[test]
fn promtool_accepts_every_dashboard_query() {
    let rules: Vec<Value> = board_queries()
        .iter()
        .enumerate()
        .map(
            |(number, query)| serde_json::json!({"record": format!("query:{number}"), "expr": filled(query)}),
        )
        .collect();
    let count = rules.len();
    // JSON is YAML.
    let text = serde_json::json!({"groups": [{"name": "dashboards", "rules": rules}]}).to_string();
    let folder = Folder::new();
    let said = promtool(&["check", "rules"], &folder.file("rules.yml", &text));
    assert!(said.contains(&format!("SUCCESS: {count} rules found")), "{said}");
}

/// What a query or a scrape says of metrics: by name, each label with its values.
type Named = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// Finds each metric of ours in a text, with the labels in the braces behind it.
fn named(text: &str, into: &mut Named) {
    let letter = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut rest = text;
    while let Some(start) = rest.find(letter) {
        let word = &rest[start..];
        let end = word.find(|c| !letter(c)).unwrap_or(word.len());
        let (name, after) = word.split_at(end);
        rest = after;
        if !name.starts_with(OURS) && !name.starts_with(PROCESS) {
            continue;
        }
        let labels = into.entry(name.to_owned()).or_default();
        let Some((inside, behind)) = after.strip_prefix('{').and_then(|inside| inside.split_once('}')) else {
            continue;
        };
        rest = behind;
        for matcher in inside.split("\",") {
            let Some((label, value)) = matcher.split_once('=') else { continue };
            let label = label.trim_end_matches(['!', ' ']);
            let value = value.trim_start_matches(['~', '"']).trim_end_matches('"');
            labels.entry(label.to_owned()).or_default().extend(value.split('|').map(str::to_owned));
        }
    }
}

#[test]
fn metrics_of_alerts_and_dashboards_are_in_a_real_scrape() {
    if !root("a scrape") {
        return;
    }
    let cgroup = crate::cgroup::Cgroup::new("dashboards");
    let _sleeper = cgroup.start(command("sleep").arg("600"));
    let fast: String = onset::tracer::TRACERS
        .iter()
        .filter(|spec| spec.hook.is_none())
        .map(|spec| format!("[tracer.{}]\nevery = \"1s\"\n", spec.name))
        .collect();
    let agent = Agent::start(&fast.replace("[tracer.waitrate]", "[tracer.waitrate]\nprobe_every = \"5s\""));
    let mut wanted = Named::new();
    named(&read(ALERTS), &mut wanted);
    board_queries().iter().for_each(|query| named(query, &mut wanted));
    assert!(wanted.len() > 25 && wanted.contains_key("onset_container_wait_ratio"), "{wanted:#?}");
    // Disks are idle here at times: their await is told once they did something.
    let page = await_that("every family", SOON * 3, || {
        std::thread::sleep(std::time::Duration::from_millis(200));
        std::fs::write(agent.folder.0.join("some"), vec![1; 1 << 20]).unwrap();
        done(command("sync").arg(agent.folder.0.join("some")));
        let (_, page) = agent.get("/metrics");
        let there =
            |name: &String| page.contains(&format!("\n{name}{{")) || page.contains(&format!("\n{name} "));
        wanted.keys().all(there).then_some(page)
    });
    let mut given = Named::new();
    page.lines().filter(|line| !line.starts_with('#')).for_each(|line| named(line, &mut given));
    for (name, labels) in &wanted {
        for (label, values) in labels.iter().filter(|(label, _)| !TARGETS.contains(&label.as_str())) {
            let there = given[name].get(label).unwrap_or_else(|| panic!("{name} has no label {label}"));
            for value in values.iter().filter(|value| !value.starts_with('$')) {
                assert!(there.contains(value), "{name} has no {label}=\"{value}\": {there:?}");
            }
        }
    }
}

#[test]
fn fields_of_the_events_dashboard_are_in_the_index_template() {
    let folder = Folder::new();
    let config = rig::config(&folder, "", "");
    let template: Value =
        serde_json::from_str(&done(command(ONSET).args(["es-template", "--json", "--config"]).arg(config)))
            .unwrap();
    let requests = template.as_array().unwrap().iter();
    let properties: Vec<_> =
        requests.filter_map(|request| request.pointer("/body/template/mappings/properties")).collect();
    let [properties] = properties[..] else { panic!("one template: {template:#}") };
    let mut fields = Vec::new();
    strings(&board("events"), "field", &mut fields);
    strings(&board("events"), "timeField", &mut fields);
    assert!(fields.len() > 4, "{fields:?}");
    for field in fields {
        let at = format!("/{}", field.replace('.', "/properties/"));
        let kind = properties.pointer(&at).and_then(|found| found["type"].as_str());
        assert!(matches!(kind, Some("keyword" | "date")), "{field} is {kind:?} in {template:#}");
    }
}

#[test]
fn dashboards_have_unique_uids_and_data_source_inputs() {
    let mut seen = BTreeSet::new();
    for name in BOARDS {
        let board = board(name);
        assert!(seen.insert(board["uid"].as_str().unwrap().to_owned()), "{name}");
        let mut sources = Vec::new();
        strings(&board["panels"], "uid", &mut sources);
        let sources: BTreeSet<_> = sources.into_iter().collect();
        let variables: BTreeSet<_> = board["templating"]["list"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|variable| variable["type"] == "datasource")
            .map(|variable| format!("${{{}}}", variable["name"].as_str().unwrap()))
            .collect();
        assert_eq!(sources, variables, "{name}");
        let ids: Vec<_> =
            board["panels"].as_array().unwrap().iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "{name}: each panel has an id");
    }
}

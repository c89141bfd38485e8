//! The real agent on this kernel, shipping what every tracer catches into what `es-template` set up.

use std::collections::BTreeSet;

use onset::tracer::TRACERS;
use serde_json::{Value, json};

use crate::cgroup::Cgroup;
use crate::fixture::outcomes;
use crate::opensearch::{OpenSearch, shared};
use crate::rig::{Agent, Folder, SOON, await_that, command, config, done, root, run};
use crate::template::{bulk, found_ids};

/// Each leaf's path, lists and their rows being of what they hold; `mapped` ends at an opaque one.
fn undeclared(path: &str, value: &Value, mapped: &Value, out: &mut BTreeSet<String>) {
    match (value, mapped.get("type"), mapped.get("properties")) {
        (Value::Array(rows), None, _) => rows.iter().for_each(|row| undeclared(path, row, mapped, out)),
        (Value::Object(object), None, Some(properties)) => {
            for (name, value) in object {
                undeclared(&format!("{path}.{name}"), value, &properties[name], out);
            }
        }
        (_, Some(_), None) => {}
        _ => drop(out.insert(path.to_owned())),
    }
}

#[test]
fn events_of_every_tracer_are_indexed_and_searchable_by_container_and_time() {
    if !root("shipping of every tracer") {
        return;
    }
    let Some(server) = shared("shipping of every tracer") else { return };
    let folder = Folder::new();
    // No rule may fire meanwhile: the events are those that are asked for.
    let quiet = TRACERS.iter().map(|spec| format!("[tracer.{}]\nevery = \"1h\"\n", spec.name));
    let rest = format!(
        "[capture]\nbudget_percent = 100\n{}[elasticsearch]\nurl = \"{}\"\nindex = \"caught\"\n",
        quiet.collect::<String>(),
        server.url()
    );
    let config = config(&folder, "region = \"here\"", &rest);
    let agent = Agent::start_in(folder, config);
    done(&mut agent.onset(&["es-template", "--apply", "--retention", "none"]));

    let cgroup = Cgroup::new("shipped");
    let load = "while :; do dd if=/dev/zero of=file bs=64k count=16 oflag=dsync 2>/dev/null; done";
    let busy = cgroup.start(command("sh").args(["-c", load]).current_dir(&agent.folder.0));
    let ids: BTreeSet<String> = TRACERS
        .iter()
        .map(|spec| {
            // The host's own tracer knows no containers.
            let whose: &[&str] = if spec.name == "cpusys" { &[] } else { &["--container", &cgroup.id] };
            let arguments = [&["trigger", spec.name, "--seconds", "1"], whose].concat();
            // Refused until the container is known.
            let asked = await_that(spec.name, SOON, || {
                let output = run(&mut agent.onset(&arguments));
                output.status.success().then_some(output.stdout)
            });
            String::from_utf8(asked).unwrap().trim().to_owned()
        })
        .collect();
    assert_eq!(ids.len(), TRACERS.len());

    // Others than those that were asked for are of kills somewhere else on this machine.
    let mut events = agent.events();
    events.retain(|event| ids.contains(event["tracer_id"].as_str().unwrap()));
    await_that("all to be shipped", SOON, || {
        (agent.metric("onset_ship_lag_records") == Some(0.0)).then_some(())
    });
    let [created, duplicate, rejected] = outcomes(&agent);
    assert!(created >= ids.len() as f64 && duplicate == 0.0 && rejected == 0.0);
    shipped_as_stored(&server, "caught", &events);
    by_container_and_time(&server, "caught", &events, &cgroup.id);

    // The same into a plain index.
    let plain = agent.folder.file("plain.toml", &rest.replace("caught", "caught-plain"));
    done(command(crate::rig::ONSET).args(["es-template", "--apply", "--plain", "--config"]).arg(plain));
    let items = bulk(&server, "caught-plain", &events);
    assert!(items.iter().all(|item| item["status"] == 201), "{items:#?}");
    by_container_and_time(&server, "caught-plain", &events, &cgroup.id);

    // Whatever a real document holds is declared, and so can be searched.
    let printed = done(&mut agent.onset(&["es-template", "--json", "--plain"]));
    let printed: Value = serde_json::from_str(&printed).unwrap();
    let mut strange = BTreeSet::new();
    for event in &events {
        undeclared("", event, &printed[0]["body"]["mappings"], &mut strange);
    }
    assert_eq!(strange, BTreeSet::new());
    drop((busy, cgroup)); // whoever writes there would hold up the folder
    assert_eq!(agent.leave(), Some(0));
}

fn shipped_as_stored(server: &OpenSearch, index: &str, events: &[Value]) {
    let found = server.found(index, &json!({ "match_all": {} }));
    for event in events {
        let hit = found.iter().find(|hit| hit["_id"] == event["tracer_id"]).expect("it is there");
        let mut sent = hit["_source"].clone();
        let stamp = sent.as_object_mut().unwrap().remove("uploaded_time");
        assert!(stamp.is_some_and(|time| time.as_str() >= event["time"].as_str()), "{hit:#}");
        assert_eq!(sent, *event);
    }
}

fn by_container_and_time(server: &OpenSearch, index: &str, events: &[Value], container: &str) {
    let of_it: Vec<&Value> = events.iter().filter(|event| event["container_id"] == container).collect();
    assert_eq!((events.len(), of_it.len()), (TRACERS.len(), TRACERS.len() - 1), "{events:#?}");
    // From the second to the last but one.
    let (from, to) = (&of_it[1]["tracer_time"], &of_it[of_it.len() - 2]["tracer_time"]);
    let filter = json!([
        { "term": { "container_id": container } },
        { "range": { "@timestamp": { "gte": from, "lte": to } } },
    ]);
    let want: BTreeSet<&str> =
        of_it[1..of_it.len() - 1].iter().map(|event| event["tracer_id"].as_str().unwrap()).collect();
    let found = found_ids(server, index, &json!({ "bool": { "filter": filter } }));
    assert_eq!(found.iter().map(String::as_str).collect::<BTreeSet<_>>(), want);
    let nobody = json!({ "term": { "container_id": "nobody" } });
    assert!(found_ids(server, index, &nobody).is_empty());
}

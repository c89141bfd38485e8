//! `onset containers`: what is seen of containers and their names, read from the host itself, so
//! that it works whether an agent runs or not.

use std::io::Write;

use super::arguments::JSON;
use super::document::short;
use super::{Command, Exit, Failure, ParsedArgs, text};
use crate::container_names;
use crate::host::{Container, Reader, Role};

pub(super) const COMMAND: Command = Command {
    name: "containers",
    about: "Lists the containers of this host with their names, as events and filters have them",
    operands: &[],
    options: &[JSON],
    run,
};

/// What `--json` prints of each.
#[derive(serde::Serialize)]
struct Row<'a> {
    container_id: &'a str,
    container_name: &'a str,
    container_hostname: &'a str,
    container_host_namespace: &'a str,
    pod: &'a str,
    pod_uid: &'a str,
    container_type: Option<&'static str>,
    container_qos: Option<&'static str>,
    container_runtime: Option<&'static str>,
    cgroup_path: &'a str,
}

impl<'a> Row<'a> {
    fn of(container: Container<'a>) -> Row<'a> {
        Row {
            container_id: container.id(),
            container_name: container.name(),
            container_hostname: container.hostname(),
            container_host_namespace: container.namespace(),
            pod: container.pod(),
            pod_uid: container.pod_uid(),
            container_type: container.role().map(Role::name),
            container_qos: container.qos(),
            container_runtime: container.runtime(),
            cgroup_path: container.cgroup_path(),
        }
    }

    fn cells(&self) -> [String; 8] {
        let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
        let maybe = |text: Option<&str>| or_dash(text.unwrap_or_default());
        [
            short(self.container_id).to_owned(),
            maybe(self.container_runtime),
            or_dash(self.container_host_namespace),
            or_dash(self.pod),
            or_dash(self.container_name),
            maybe(self.container_type),
            maybe(self.container_qos),
            or_dash(self.container_hostname),
        ]
    }
}

fn run(args: &ParsedArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    let config = args.config()?;
    let opened = Reader::open(&config.paths, config.containers);
    let mut reader = opened.map_err(|error| Failure::Failed(error.to_string()))?;
    let (found, error) = container_names::resolve_all(&config.names, reader.containers());
    for (key, report) in &found {
        reader.learn(*key, report);
    }
    let mut rows: Vec<Row<'_>> = reader.containers().iter().map(Row::of).collect();
    rows.sort_by_key(|row| (row.container_host_namespace, row.pod, row.container_name, row.container_id));
    if args.flag(JSON.long) {
        for row in &rows {
            let json = serde_json::to_string(row).map_err(|error| Failure::Failed(error.to_string()))?;
            writeln!(out, "{json}")?;
        }
    } else {
        let heads = ["id", "runtime", "namespace", "pod", "name", "type", "qos", "hostname"];
        let cells = rows.iter().map(Row::cells);
        text::table("", &[heads.map(String::from)].into_iter().chain(cells).collect::<Vec<_>>(), out)?;
        let claims = reader.faults().claimed_twice;
        if claims > 0 {
            writeln!(
                out,
                "\nleft out: {claims}; another cgroup is the container of that id: docs/containers.md, \"Whose id it is\""
            )?;
        }
    }
    match error {
        None => Ok(Exit::Success),
        // The list stands, without what the kubelet would have told.
        Some(error) => {
            out.flush()?;
            Err(Failure::Failed(format!("no names from the kubelet: {error}")))
        }
    }
}

//! The configuration: TOML in, checked values out. Every error is found in one go and named by
//! its key path; an unknown key is an error. The keys are tables (`knob`), the tracers' own keys
//! among them, so `onset config` prints exactly what is read here.

mod elasticsearch;
mod environment;
#[doc(hidden)]
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod issues;
mod names;
mod sections;
mod tracers;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use crate::knob::{Check, Knob, Section, Value, Values, size, time};
pub use names::{Kubelet, Names};
use toml::{Table, Value as Toml};

pub use crate::host::Paths;
use crate::tracer::{NAME, Registry};
use issues::known_issues;
use sections::{SECTIONS, TOP};
pub use tracers::ConfiguredTracer;

/// Where the config is looked for when none is named.
pub const DEFAULT_PATH: &str = "/etc/onset/onset.toml";

/// A config that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is not there, or not for us.
    #[error("{path}: {source}; name another file with --config, or print a default one with `onset config`", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The kernel's word.
        source: std::io::Error,
    },
    /// Not TOML.
    #[error("{0}")]
    Syntax(String),
    /// Keys or values that are wrong, each on a line.
    #[error("{}", .0.join("\n"))]
    Keys(Vec<String>),
}

/// The whole configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Host name in documents; empty for the kernel's.
    pub hostname: String,
    /// Region in documents.
    pub region: String,
    /// The agent's unix socket.
    pub socket: PathBuf,
    /// Whose members may use it beside root and the agent's own user.
    pub socket_group: Option<String>,
    /// Roots of the host's trees.
    pub paths: Paths,
    /// The local log.
    pub log: Log,
    /// Where the endpoint listens.
    pub listen: SocketAddr,
    /// The server that documents are shipped to.
    pub elasticsearch: Values,
    /// How many containers are followed at once.
    pub containers: usize,
    /// Where their names come from.
    pub names: Names,
    /// Share of wall time, in percent over ten minutes, that captures may run.
    pub capture_percent: u32,
    /// Each tracer of the registry, in its order, and then those that this config makes.
    pub tracers: Vec<ConfiguredTracer>,
}

/// The local log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Its folder.
    pub dir: PathBuf,
    /// Size of one segment in bytes.
    pub segment: u64,
    /// Size of all segments in bytes.
    pub budget: u64,
    /// The largest document in bytes.
    pub document: usize,
    /// How long a record may stay unsynced; zero for not at all.
    pub sync: Duration,
}

impl Config {
    /// Reads a file; with none named, `/etc/onset/onset.toml` where it exists, else the defaults.
    pub fn load<'r>(named: Option<&Path>, registry: impl Into<Registry<'r>>) -> Result<Config, Error> {
        let path = named.unwrap_or(Path::new(DEFAULT_PATH));
        match std::fs::read_to_string(path) {
            Ok(text) => Config::parse(&text, registry),
            Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
                Config::parse("", registry)
            }
            Err(source) => Err(Error::Unreadable { path: path.to_owned(), source }),
        }
    }

    /// Reads the text of a file.
    pub fn parse<'r>(text: &str, registry: impl Into<Registry<'r>>) -> Result<Config, Error> {
        let registry = registry.into();
        let mut file: Table =
            text.parse().map_err(|error: toml::de::Error| Error::Syntax(syntax(text, &error)))?;
        let mut errors = Vec::new();
        let issues = known_issues(&mut file, &mut errors);
        let [paths, log, http, elasticsearch, containers, capture] = SECTIONS.map(|section| {
            let table = take_table(&mut file, section.name, section.name, &mut errors);
            values(table, section.name, &[section.knobs], &mut errors)
        });
        let tracers = tracers::read(&mut file, registry, &issues, &mut errors);
        let tables = registry.templates.iter().map(|template| template.section);
        let tables: Vec<_> = SECTIONS
            .iter()
            .map(|section| section.name)
            .chain(["known_issue", "tracer"])
            .chain(tables)
            .collect();
        let top = values_beside(file, "", &[TOP.knobs], &tables, &mut errors);
        let listen = listen(&http, &mut errors);
        let capture_percent = capture_percent(&capture, &mut errors);
        let names = names::read(&containers, Path::new(paths.text("root")), &mut errors);
        let log = read_log(&log, &mut errors);
        elasticsearch::check(&elasticsearch, &mut errors);
        let [hostname, region] = ["hostname", "region"].map(|key| variables(&top, "", key, &mut errors));
        if !errors.is_empty() {
            return Err(Error::Keys(errors));
        }
        Ok(Config {
            hostname,
            region,
            socket: top.text("socket").into(),
            socket_group: Some(top.text("socket_group").to_owned()).filter(|group| !group.is_empty()),
            paths: Paths {
                proc: paths.text("proc").into(),
                sys: paths.text("sys").into(),
                cgroup: paths.text("cgroup").into(),
            },
            log,
            listen,
            elasticsearch,
            containers: containers.len("capacity"),
            names,
            capture_percent,
            tracers,
        })
    }

    /// The whole default config, commented, as TOML.
    #[must_use]
    pub fn default_text<'r>(registry: impl Into<Registry<'r>>) -> String {
        let registry = registry.into();
        let mut text =
            String::from("# onset's configuration: every key with its default. Unknown keys are errors.\n");
        section(&mut text, TOP.name, TOP.about, &[TOP.knobs]);
        for part in SECTIONS {
            section(&mut text, part.name, part.about, &[part.knobs]);
        }
        text.push_str(
            "\n# Names for what is known to go wrong: an event gets the name when, in one of its stacks, frames\n\
             # hold these words in this order, innermost first.\n\
             # [[known_issue]]\n# name = \"nfs server gone\"\n# frames = [\"nfs_wait_bit_killable\", \"rpc_\"]\n",
        );
        for spec in registry.tracers {
            section(
                &mut text,
                &format!("tracer.{}", spec.name),
                spec.about,
                &[&spec.common_knobs(), spec.knobs],
            );
        }
        for template in registry.templates {
            let mut example = String::new();
            let knobs: &[&[_]] = &[&[NAME], &template.base.common_knobs(), template.base.knobs];
            section(&mut example, &format!("[{}]", template.section), template.base.about, knobs);
            // It makes nothing by itself: whoever wants one says what it is.
            text.push('\n');
            for line in example.lines().filter(|line| !line.is_empty()) {
                let _ = writeln!(text, "# {}", line.trim_start_matches("# "));
            }
        }
        text
    }

    /// What differs from `newer`, beside the tracers' own keys, and takes effect without a restart.
    #[must_use]
    pub fn changed_at_once(&self, newer: &Config) -> Vec<&'static str> {
        let issues =
            |config: &Config| config.tracers.first().map(|tracer| tracer.settings.known_issues().to_vec());
        [
            ("[capture]", self.capture_percent != newer.capture_percent),
            ("[elasticsearch]", self.elasticsearch != newer.elasticsearch),
            ("[[known_issue]]", issues(self) != issues(newer)),
        ]
        .into_iter()
        .filter_map(|(name, differs)| differs.then_some(name))
        .collect()
    }

    /// What differs from `newer` but is only read at start: these keys need a restart.
    #[must_use]
    pub fn fixed_at_start(&self, newer: &Config) -> Vec<&'static str> {
        [
            ("hostname", self.hostname != newer.hostname),
            ("region", self.region != newer.region),
            ("socket", self.socket != newer.socket),
            ("socket_group", self.socket_group != newer.socket_group),
            ("[paths]", self.paths != newer.paths),
            ("[log]", self.log != newer.log),
            ("[http]", self.listen != newer.listen),
            ("[containers]", self.containers != newer.containers || self.names != newer.names),
        ]
        .into_iter()
        .filter_map(|(name, differs)| differs.then_some(name))
        .collect()
    }
}

fn section(text: &mut String, name: &str, about: &str, knobs: &[&[Knob]]) {
    text.push('\n');
    for line in about.lines() {
        let _ = writeln!(text, "# {line}");
    }
    if !name.is_empty() {
        let _ = writeln!(text, "[{name}]");
    }
    for knob in knobs.iter().copied().flatten() {
        let _ = writeln!(text, "{} = {}  # {}", knob.key, knob.default, knob.about);
    }
}

fn syntax(text: &str, error: &toml::de::Error) -> String {
    let at = error.span().map_or(0, |span| span.start);
    let line = text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
    format!("line {line}: {}", error.message().trim().replace('\n', ", "))
}

fn take_table(from: &mut Table, key: &str, path: &str, errors: &mut Vec<String>) -> Table {
    match from.remove(key) {
        None => Table::new(),
        Some(Toml::Table(table)) => table,
        Some(other) => {
            errors.push(format!("{path}: must be a table ([{path}]), not {}", other.type_str()));
            Table::new()
        }
    }
}

/// Where the endpoint is to listen.
fn listen(http: &Values, errors: &mut Vec<String>) -> SocketAddr {
    http.text("listen").parse().unwrap_or_else(|_| {
        errors.push(format!(
            "http.listen: must be an address and a port such as \"127.0.0.1:9710\", not \"{}\"",
            http.text("listen")
        ));
        SocketAddr::from(([127, 0, 0, 1], 0))
    })
}

fn capture_percent(capture: &Values, errors: &mut Vec<String>) -> u32 {
    let percent = capture.number("budget_percent");
    if percent > 100.0 {
        errors.push(format!("capture.budget_percent: must be from 0 to 100, not {percent}"));
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // 0 to 100, or it is refused
    let percent = percent as u32;
    percent
}

fn values(table: Table, path: &str, knobs: &[&[Knob]], errors: &mut Vec<String>) -> Values {
    values_beside(table, path, knobs, &[], errors)
}

/// The values of a table that holds others, which were taken out of it before.
fn values_beside(
    mut table: Table,
    path: &str,
    knobs: &[&[Knob]],
    tables: &[&str],
    errors: &mut Vec<String>,
) -> Values {
    let full = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    let known = knobs.iter().copied().flatten();
    let read = known.clone().map(|knob| {
        let value = table.remove(knob.key).map(|value| knob.default.accept(&value));
        let value = value.and_then(|value| {
            value.map_err(|error| errors.push(format!("{}: {error}", full(knob.key)))).ok()
        });
        (knob.key, value.unwrap_or_else(|| knob.default.given()))
    });
    let read = Values(read.collect());
    for key in table.keys() {
        let mut names: Vec<_> = known.clone().map(|knob| knob.key).collect();
        names.extend(tables);
        errors.push(format!("{}: unknown key; here are {}", full(key), names.join(", ")));
    }
    read
}

/// A text with the environment's variables in it.
fn variables(values: &Values, path: &str, key: &str, errors: &mut Vec<String>) -> String {
    let read = environment::expanded(values.text(key), |name| std::env::var(name).ok());
    read.unwrap_or_else(|error| {
        errors.push(format!("{path}{key}: {error}"));
        String::new()
    })
}

fn read_log(log: &Values, errors: &mut Vec<String>) -> Log {
    let (segment, budget, document) = (log.size("segment"), log.size("budget"), log.size("document"));
    if budget < segment * 2 {
        errors.push(
            "log.budget: must be at least two segments, or nothing would be left when one is full".to_owned(),
        );
    }
    if document > segment / 2 {
        errors.push(format!(
            "log.document: must be at most half a segment; raise log.segment to {} MiB, or lower log.document",
            (document * 2).div_ceil(1 << 20)
        ));
    }
    let document = usize::try_from(document).unwrap_or(usize::MAX);
    Log { dir: log.text("dir").into(), segment, budget, document, sync: log.time("sync") }
}

#[cfg(test)]
mod tests;

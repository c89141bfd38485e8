//! The tracers that a config has: `[tracer.NAME]` of each of the program's own, and those that it makes itself, one in each
//! table of a template.

use std::collections::BTreeSet;

use toml::{Table, Value as Toml};

use super::{take_table, values};
use crate::tracer::{KnownIssue, NAME, Registry, Settings, Spec, TRACERS_MAX, TracerTemplate};

/// A tracer and its configuration.
#[derive(Clone, Debug)]
pub struct ConfiguredTracer {
    /// What it is.
    pub spec: &'static Spec,
    /// Its configuration.
    pub settings: Settings,
}

impl PartialEq for ConfiguredTracer {
    fn eq(&self, other: &ConfiguredTracer) -> bool {
        std::ptr::eq(self.spec, other.spec) && self.settings == other.settings
    }
}

/// Takes the tables of all tracers out of the file, and adds what is wrong with them.
pub(super) fn read(
    file: &mut Table,
    registry: Registry<'_>,
    issues: &[KnownIssue],
    errors: &mut Vec<String>,
) -> Vec<ConfiguredTracer> {
    let mut tables = take_table(file, "tracer", "tracer", errors);
    let built_in = registry.tracers.iter().map(|spec| {
        let path = format!("tracer.{}", spec.name);
        let table = take_table(&mut tables, spec.name, &path, errors);
        let values = values(table, &path, &[&spec.common_knobs(), spec.knobs], errors);
        ConfiguredTracer { spec, settings: Settings::new(values, issues.to_vec()) }
    });
    let mut tracers: Vec<ConfiguredTracer> = built_in.collect();
    for name in tables.keys() {
        let known: Vec<_> = registry.tracers.iter().map(|spec| spec.name).collect();
        errors.push(format!("tracer.{name}: there is no such tracer; there are {}", known.join(", ")));
    }
    for template in registry.templates {
        for (index, table) in take_list(file, template.section, errors).into_iter().enumerate() {
            let path = format!("{}[{index}]", template.section);
            let made = made(template, table, &path, issues, errors);
            if let Err(Some(error)) = made.and_then(|made| joined(&mut tracers, made)) {
                errors.push(format!("{path}.{error}"));
            }
        }
    }
    tracers
}

/// The tables of `[[section]]`.
fn take_list(file: &mut Table, section: &str, errors: &mut Vec<String>) -> Vec<Table> {
    let list = match file.remove(section) {
        None => return Vec::new(),
        Some(Toml::Array(list)) => list,
        Some(other) => {
            errors.push(format!("{section}: must be a list ([[{section}]]), not {}", other.type_str()));
            return Vec::new();
        }
    };
    let table = |(index, given)| match given {
        Toml::Table(table) => Some(table),
        other => {
            errors.push(format!("{section}[{index}]: must be a table, not {}", Toml::type_str(&other)));
            None
        }
    };
    list.into_iter().enumerate().filter_map(table).collect()
}

/// The tracer that one table makes. `Err(None)`: what is wrong was said.
fn made(
    template: &'static TracerTemplate,
    table: Table,
    path: &str,
    issues: &[KnownIssue],
    errors: &mut Vec<String>,
) -> Result<ConfiguredTracer, Option<String>> {
    let before = errors.len();
    let knobs: &[&[_]] = &[&[NAME], &template.base.common_knobs(), template.base.knobs];
    let values = values(table, path, knobs, errors);
    if errors.len() > before {
        return Err(None);
    }
    let settings = Settings::new(values, issues.to_vec());
    let spec = template.spec(&settings).map_err(Some)?;
    Ok(ConfiguredTracer { spec, settings })
}

/// One more tracer, unless it could be taken for another one.
fn joined(all: &mut Vec<ConfiguredTracer>, made: ConfiguredTracer) -> Result<(), Option<String>> {
    let spec = made.spec;
    if all.len() >= TRACERS_MAX {
        return Err(Some(format!(
            "name: there may be {TRACERS_MAX} tracers in all, and there are as many already"
        )));
    }
    if all.iter().any(|other| other.spec.name == spec.name) {
        return Err(Some(format!("name: there is a tracer {} already", spec.name)));
    }
    let metrics = |spec: &'static Spec| spec.metrics.iter().map(|metric| metric.name);
    let mut names: BTreeSet<_> = all.iter().flat_map(|other| metrics(other.spec)).collect();
    if let Some(twice) = metrics(spec).find(|name| !names.insert(name)) {
        return Err(Some(format!("name: it would make the metric {twice} for a second time")));
    }
    all.push(made);
    Ok(())
}

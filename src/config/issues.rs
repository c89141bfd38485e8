//! `[[known_issue]]`: names for what is known to go wrong.

use toml::{Table, Value as Toml};

use crate::tracer::KnownIssue;

/// Takes them out of the file, and adds what is wrong with them.
pub(super) fn known_issues(file: &mut Table, errors: &mut Vec<String>) -> Vec<KnownIssue> {
    let list = match file.remove("known_issue") {
        None => return Vec::new(),
        Some(Toml::Array(list)) => list,
        Some(other) => {
            errors.push(format!("known_issue: must be a list ([[known_issue]]), not {}", other.type_str()));
            return Vec::new();
        }
    };
    let mut issues = Vec::new();
    for (index, given) in list.into_iter().enumerate() {
        let path = format!("known_issue[{index}]");
        let Toml::Table(mut table) = given else {
            errors.push(format!("{path}: must be a table with name and frames"));
            continue;
        };
        let name = match table.remove("name") {
            Some(Toml::String(name)) if !name.is_empty() => name,
            _ => {
                errors.push(format!("{path}.name: must be a text"));
                continue;
            }
        };
        let frames = match table.remove("frames") {
            Some(Toml::Array(list)) if !list.is_empty() => list,
            _ => {
                errors
                    .push(format!("{path}.frames: must be a list of parts of frame names, innermost first"));
                continue;
            }
        };
        let texts: Vec<String> = frames
            .iter()
            .filter_map(Toml::as_str)
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
            .collect();
        if texts.len() != frames.len() {
            errors.push(format!("{path}.frames: each must be a text that is not empty"));
        }
        for key in table.keys() {
            errors.push(format!("{path}.{key}: unknown key; here are name, frames"));
        }
        issues.push(KnownIssue { name, frames: texts });
    }
    issues
}

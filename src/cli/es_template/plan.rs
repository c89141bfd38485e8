//! What a server must hold before documents come: which requests make it so. Pure.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

/// Above the templates that servers bring along (100) and that people write for everything.
const PRIORITY: u32 = 500;
/// A backing index is left for a new one at this size: both makers advise 10 to 50 GB a shard.
const ROLLOVER_SIZE: &str = "25gb";
/// ... and at this age, ...
const ROLLOVER_AGE: Duration = Duration::from_secs(7 * 86_400);
/// ... or at this part of the retention, so that not much more is kept than was asked for.
const ROLLOVER_PART: u32 = 4;

/// Whose server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavor {
    /// Elasticsearch 8 and 9.
    Elasticsearch,
    /// OpenSearch 2 and 3.
    OpenSearch,
}

impl Flavor {
    /// By its name.
    pub fn named(name: &str) -> Option<Flavor> {
        match name {
            "elasticsearch" => Some(Flavor::Elasticsearch),
            "opensearch" => Some(Flavor::OpenSearch),
            _ => None,
        }
    }
}

impl fmt::Display for Flavor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Flavor::Elasticsearch => "Elasticsearch",
            Flavor::OpenSearch => "OpenSearch",
        })
    }
}

/// One request.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiRequest {
    /// GET, POST, PUT.
    pub method: &'static str,
    /// Its path, with the leading slash.
    pub path: String,
    /// Its body.
    pub body: Option<Value>,
}

/// As the developers' consoles of both take it.
impl fmt::Display for ApiRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)?;
        match &self.body {
            Some(body) => write!(f, "\n{body:#}"),
            None => Ok(()),
        }
    }
}

/// A GET.
pub fn get(path: String) -> ApiRequest {
    ApiRequest { method: "GET", path, body: None }
}

fn put(path: String, body: Option<Value>) -> ApiRequest {
    ApiRequest { method: "PUT", path, body }
}

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Whose server.
    pub flavor: Flavor,
    /// The index's or data stream's name; the template and the policy have it too.
    pub name: String,
    /// A plain index, and no data stream.
    pub plain: bool,
    /// How long documents are kept; `None`: until someone deletes them.
    pub retention: Option<Duration>,
    /// The documents' mapping.
    pub mapping: Value,
}

impl Plan {
    /// All of it, for a server that has nothing yet.
    pub fn calls(&self) -> Vec<ApiRequest> {
        if self.plain {
            return vec![self.index()];
        }
        self.policy().into_iter().chain([self.template(true), self.stream()]).collect()
    }

    /// The retention policy.
    pub fn policy(&self) -> Option<ApiRequest> {
        let retention = self.retention?;
        let (kept, rolled) = (span(retention), span(rollover_age(retention)));
        let about = format!("onset's documents: kept for {kept} after the rollover of their index");
        Some(match self.flavor {
            Flavor::Elasticsearch => put(
                self.policy_path(),
                Some(json!({ "policy": {
                    "_meta": { "description": about },
                    "phases": {
                        "hot": { "actions": { "rollover": { "max_age": rolled, "max_primary_shard_size": ROLLOVER_SIZE } } },
                        "delete": { "min_age": kept, "actions": { "delete": {} } },
                    },
                } })),
            ),
            Flavor::OpenSearch => put(
                self.policy_path(),
                Some(json!({ "policy": {
                    "description": about,
                    "default_state": "hot",
                    "states": [
                        {
                            "name": "hot",
                            "actions": [{ "rollover": { "min_index_age": rolled, "min_size": ROLLOVER_SIZE } }],
                            "transitions": [{ "state_name": "delete", "conditions": { "min_rollover_age": kept } }],
                        },
                        { "name": "delete", "actions": [{ "delete": {} }], "transitions": [] },
                    ],
                    "ism_template": [{ "index_patterns": [self.name], "priority": PRIORITY }],
                } })),
            ),
        })
    }

    /// Where the policy is.
    pub fn policy_path(&self) -> String {
        match self.flavor {
            Flavor::Elasticsearch => format!("/_ilm/policy/{}", self.name),
            Flavor::OpenSearch => format!("/_plugins/_ism/policies/{}", self.name),
        }
    }

    /// The index template. `governed`: the server has the policy.
    pub fn template(&self, governed: bool) -> ApiRequest {
        let mut settings = json!({ "index": { "codec": "best_compression" } });
        if governed && self.retention.is_some() && self.flavor == Flavor::Elasticsearch {
            settings["index"]["lifecycle"] = json!({ "name": self.name });
        }
        put(
            format!("/_index_template/{}", self.name),
            Some(json!({
                "index_patterns": [self.name],
                "data_stream": {},
                "priority": PRIORITY,
                "template": { "settings": settings, "mappings": self.mapping },
                "_meta": { "description": "onset's documents", "onset_version": env!("CARGO_PKG_VERSION") },
            })),
        )
    }

    /// The data stream.
    pub fn stream(&self) -> ApiRequest {
        put(format!("/_data_stream/{}", self.name), None)
    }

    /// The plain index.
    pub fn index(&self) -> ApiRequest {
        let settings = json!({ "index": { "codec": "best_compression" } });
        put(format!("/{}", self.name), Some(json!({ "settings": settings, "mappings": self.mapping })))
    }

    /// The mapping, for what is there already: it takes new fields and keeps the old.
    pub fn remap(&self) -> ApiRequest {
        put(format!("/{}/_mapping", self.name), Some(self.mapping.clone()))
    }

    /// Puts what a data stream has already under the policy.
    pub fn govern(&self, backing: &[String]) -> Vec<ApiRequest> {
        if self.retention.is_none() || backing.is_empty() {
            return Vec::new();
        }
        match self.flavor {
            Flavor::Elasticsearch => vec![put(
                format!("/{}/_settings", self.name),
                Some(json!({ "index": { "lifecycle": { "name": self.name } } })),
            )],
            // The first is for those that have none, the second for those that have an older one. Each
            // says of the others that it is not for them, and that is no failure.
            Flavor::OpenSearch => ["add", "change_policy"]
                .map(|verb| ApiRequest {
                    method: "POST",
                    path: format!("/_plugins/_ism/{verb}/{}", backing.join(",")),
                    body: Some(json!({ "policy_id": self.name })),
                })
                .to_vec(),
        }
    }

    /// What the policy does, in words.
    pub fn policy_words(&self) -> String {
        match self.retention {
            None => "documents are kept until someone deletes them".to_owned(),
            Some(retention) => format!(
                "a new backing index every {} or {ROLLOVER_SIZE}, deleted {} after it was left",
                span(rollover_age(retention)),
                span(retention)
            ),
        }
    }
}

fn rollover_age(retention: Duration) -> Duration {
    ROLLOVER_AGE.min(retention / ROLLOVER_PART)
}

/// In the largest unit that gives a whole number: both servers read these.
fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    let units = [("d", 86_400), ("h", 3600), ("m", 60)];
    let whole = units.into_iter().find(|(_, unit)| seconds >= *unit && seconds.is_multiple_of(*unit));
    whole.map_or_else(|| format!("{seconds}s"), |(name, unit)| format!("{}{name}", seconds / unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(flavor: Flavor, days: u64) -> Plan {
        let retention = Some(Duration::from_secs(days * 86_400)).filter(|time| !time.is_zero());
        Plan { flavor, name: "onset".into(), plain: false, retention, mapping: json!({ "properties": {} }) }
    }

    fn paths(plan: &Plan) -> Vec<String> {
        plan.calls().iter().map(|call| format!("{} {}", call.method, call.path)).collect()
    }

    #[test]
    fn the_policy_comes_before_the_template_and_that_before_the_data_stream() {
        let calls = paths(&plan(Flavor::Elasticsearch, 30));
        assert_eq!(
            calls,
            ["PUT /_ilm/policy/onset", "PUT /_index_template/onset", "PUT /_data_stream/onset"]
        );
        let calls = paths(&plan(Flavor::OpenSearch, 30));
        assert_eq!(calls[0], "PUT /_plugins/_ism/policies/onset");
        assert_eq!(calls[1..], ["PUT /_index_template/onset", "PUT /_data_stream/onset"]);
        let plain = Plan { plain: true, retention: None, ..plan(Flavor::OpenSearch, 0) };
        assert_eq!(paths(&plain), ["PUT /onset"]);
    }

    #[test]
    fn nothing_names_a_policy_that_is_not_there() {
        for (plan, governed, want) in [
            (plan(Flavor::Elasticsearch, 30), true, true),
            (plan(Flavor::Elasticsearch, 30), false, false),
            (plan(Flavor::Elasticsearch, 0), true, false),
            // OpenSearch's policies name the streams, and its templates no policies.
            (plan(Flavor::OpenSearch, 30), true, false),
        ] {
            let template = plan.template(governed).body.expect("a body");
            let named = template.pointer("/template/settings/index/lifecycle/name");
            assert_eq!(named.is_some(), want, "{plan:?}");
        }
        assert_eq!(plan(Flavor::Elasticsearch, 0).policy(), None);
        assert!(plan(Flavor::OpenSearch, 0).govern(&["a".into()]).is_empty());
    }

    #[test]
    fn retention_exceeds_the_requested_age_by_at_most_a_quarter() {
        for (seconds, rolled, kept) in
            [(30 * 86_400, "7d", "30d"), (86_400, "6h", "1d"), (3600, "15m", "1h"), (3700, "925s", "3700s")]
        {
            let retention = Some(Duration::from_secs(seconds));
            let plan = Plan { retention, ..plan(Flavor::OpenSearch, 0) };
            let policy = plan.policy().and_then(|call| call.body).expect("a policy");
            let state = &policy["policy"]["states"][0];
            assert_eq!(state["actions"][0]["rollover"]["min_index_age"], rolled);
            assert_eq!(state["transitions"][0]["conditions"]["min_rollover_age"], kept);
        }
    }

    #[test]
    fn requests_are_printed_in_console_syntax() {
        let calls = plan(Flavor::Elasticsearch, 30).calls();
        assert_eq!(calls[2].to_string(), "PUT /_data_stream/onset");
        let text = calls[0].to_string();
        let (line, body) = text.split_once('\n').expect("a body");
        assert_eq!(line, "PUT /_ilm/policy/onset");
        assert_eq!(
            serde_json::from_str::<Value>(body).expect("JSON"),
            calls[0].body.clone().expect("a body")
        );
    }
}

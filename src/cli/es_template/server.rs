//! The server, asked one thing after the other, and what its answers mean for a person.

use serde_json::Value;

use super::plan::{ApiRequest, Flavor, Plan, get};
use crate::cli::{Failure, text};
use crate::net::client::{Client, Request};
use crate::ship::{Authorization, Settings};

/// A longer answer is none of a server's of this kind.
const REPLY_MAX: usize = 8 << 20;

/// A server that can be asked.
pub struct Server {
    client: Client,
    authorization: Option<Authorization>,
    url: String,
}

/// What has the name already.
pub enum Existing {
    /// Nothing.
    Nothing,
    /// A data stream with these backing indices.
    Stream(Vec<String>),
    /// An index or an alias.
    Index,
}

/// What a server said.
pub struct Answer {
    status: u16,
    body: Value,
}

impl Answer {
    /// Of these bytes, which may be anything.
    pub fn read(status: u16, body: &[u8]) -> Answer {
        let body = serde_json::from_slice(body)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(body).into_owned()));
        Answer { status, body }
    }

    /// Whether it did as it was asked.
    pub fn is_well(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Whether the server does not know such requests at all.
    pub fn is_unknown(&self) -> bool {
        let reason = self.reason();
        matches!(self.status, 405 | 410) || self.status == 400 && reason.contains("no handler found")
    }

    /// Which version of the thing it showed, where it counts them.
    pub fn version(&self) -> Option<(u64, u64)> {
        let part = |name| self.body.get(name).and_then(Value::as_u64);
        part("_seq_no").zip(part("_primary_term"))
    }

    /// Of the data streams that it showed.
    fn backing_indices(&self) -> Vec<String> {
        let streams = self.body.get("data_streams").and_then(Value::as_array);
        let indices = streams.into_iter().flatten().filter_map(|stream| stream.get("indices")?.as_array());
        let name = |index: &Value| Some(index.get("index_name")?.as_str()?.to_owned());
        indices.flatten().filter_map(name).collect()
    }

    fn reason(&self) -> String {
        let error = self.body.get("error").unwrap_or(&self.body);
        let part = |name: &str| error.get(name).and_then(Value::as_str);
        let words = match (error.as_str(), part("type"), part("reason")) {
            (Some(words), ..) => words.to_owned(),
            (_, Some(kind), Some(reason)) => format!("{kind}: {reason}"),
            _ => String::new(),
        };
        text::line(&words.chars().take(1000).collect::<String>()).to_string()
    }
}

impl Server {
    /// As the config has it.
    pub fn new(settings: &Settings) -> Result<Server, Failure> {
        let failed = |error: crate::ship::Error| Failure::Failed(error.to_string());
        let (client, authorization) =
            (settings.client().map_err(failed)?, settings.authorization().map_err(failed)?);
        Ok(Server { client, authorization, url: settings.url().to_owned() })
    }

    /// Its address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whatever it says.
    pub fn ask(&self, call: &ApiRequest) -> Result<Answer, Failure> {
        let url = format!("{}{}", self.url, call.path);
        let body = call.body.as_ref().map(Value::to_string).unwrap_or_default();
        let mut headers = vec![("accept", "application/json")];
        if call.body.is_some() {
            headers.push(("content-type", "application/json"));
        }
        headers.extend(self.authorization.as_ref().map(|who| ("authorization", who.header())));
        let request = Request { method: call.method, url: &url, headers: &headers, body: body.as_bytes() };
        let mut reply = Vec::new();
        let head = self
            .client
            .send(request, &mut reply, REPLY_MAX)
            .map_err(|error| Failure::Failed(format!("cannot ask {}: {error}", self.url)))?;
        Ok(Answer::read(head.status, &reply))
    }

    /// What it says when it does as it is asked.
    pub fn must(&self, call: &ApiRequest) -> Result<Value, Failure> {
        let answer = self.ask(call)?;
        if answer.is_well() { Ok(answer.body) } else { Err(self.refused(call, &answer)) }
    }

    /// In words, with what to do about it.
    pub fn refused(&self, call: &ApiRequest, answer: &Answer) -> Failure {
        let remedy = match answer.status {
            401 => "; see elasticsearch.username and password_file, or api_key_file",
            403 => {
                "; setting up wants the cluster privileges manage_index_templates and manage_ilm (OpenSearch: cluster_manage_index_templates and ISM's), and all on the index"
            }
            _ => "",
        };
        let (method, path) = (call.method, &call.path);
        let words =
            format!("{method} {}{path}: HTTP {} {}{remedy}", self.url, answer.status, answer.reason());
        Failure::Failed(words)
    }

    /// Whose it is, and its version.
    pub fn flavor(&self) -> Result<(Flavor, String), Failure> {
        let about = self.must(&get("/".to_owned()))?;
        flavor(&about).ok_or_else(|| {
            let words =
                format!("{} is neither Elasticsearch nor OpenSearch; see elasticsearch.url", self.url);
            Failure::Failed(words)
        })
    }

    /// What has the plan's name already.
    pub fn there(&self, plan: &Plan) -> Result<Existing, Failure> {
        let call = get(format!("/_data_stream/{}", plan.name));
        let answer = self.ask(&call)?;
        match answer.status {
            404 => {}
            // OpenSearch, of an alias.
            400 if answer.reason().contains("alias") => return Ok(Existing::Index),
            _ if answer.is_well() => {
                let indices = answer.backing_indices();
                if !indices.is_empty() {
                    return Ok(Existing::Stream(indices));
                }
            }
            _ => return Err(self.refused(&call, &answer)),
        }
        let call = get(format!("/{}", plan.name));
        let answer = self.ask(&call)?;
        match answer.status {
            404 => Ok(Existing::Nothing),
            _ if answer.is_well() => Ok(Existing::Index),
            _ => Err(self.refused(&call, &answer)),
        }
    }
}

/// What a server says that is asked for nothing.
fn flavor(about: &Value) -> Option<(Flavor, String)> {
    let part = |path: &str| about.pointer(path).and_then(Value::as_str);
    let number = part("/version/number")?;
    let opensearch = part("/version/distribution") == Some("opensearch");
    let flavor = if opensearch { Flavor::OpenSearch } else { Flavor::Elasticsearch };
    Some((flavor, text::line(number).to_string()))
}

/// Any bytes as an answer: what is told of it fits a line.
#[cfg(any(test, feature = "fuzz"))]
pub fn fuzz(data: &[u8]) {
    let status = data.first().map_or(500, |first| 200 + u16::from(*first));
    let answer = Answer::read(status, data.get(1..).unwrap_or_default());
    let reason = answer.reason();
    assert!(reason.chars().count() <= 1000 && !reason.contains(char::is_control), "{reason:?}");
    assert!(answer.version().is_none() || answer.body.is_object());
    assert!(!(answer.is_well() && answer.is_unknown()));
    assert!(answer.backing_indices().is_empty() || answer.body.is_object());
    let version = flavor(&answer.body).map(|(_, version)| version);
    assert!(version.is_none_or(|version| !version.contains(char::is_control)));
}

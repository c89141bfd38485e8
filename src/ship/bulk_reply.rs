//! The server's reply to a bulk request, record by record. It is accepted only if it has one item for each record that
//! was sent, in the same order, with the same ids. Pure, and bounded by what was sent.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::log::RecordId;

/// A longer reason is cut.
const REASON_MAX: usize = 400;

/// The server's status for one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemStatus {
    /// It is in the index now.
    Created,
    /// It was there already.
    Duplicate,
    /// The server will never take it.
    Rejected,
    /// The server cannot take it now.
    Busy,
    /// The server takes none of this kind until someone changes something there.
    Refused,
}

/// Why a record was not taken.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ErrorReason {
    /// The status of it alone, as of HTTP.
    pub status: u16,
    /// The server's name for what is wrong.
    pub kind: String,
    /// The server's words.
    pub reason: String,
}

impl fmt::Display for ErrorReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HTTP {}", self.status)?;
        if !self.kind.is_empty() {
            write!(f, " {}", self.kind)?;
        }
        if !self.reason.is_empty() {
            write!(f, ": {}", self.reason)?;
        }
        Ok(())
    }
}

/// A reply that does not answer the request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidReply {
    /// Something else than Elasticsearch, or a reply that was cut.
    #[error("its reply is not one to a bulk request ({0}); is url that of an Elasticsearch or OpenSearch?")]
    NotBulk(String),
    /// Another number of items, or other ones.
    #[error("its reply does not fit what it was sent ({0})")]
    Mismatch(String),
}

/// Parses the reply `body`; calls `each` for each record of `sent`, in order.
pub fn parse(
    body: &[u8],
    sent: &mut dyn Iterator<Item = RecordId>,
    each: &mut dyn FnMut(usize, ItemStatus, ErrorReason),
) -> Result<(), InvalidReply> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let mut mismatch = None;
    let whole = ReplyVisitor { sent, each, mismatch: &mut mismatch };
    let read = whole.deserialize(&mut reader).and_then(|()| reader.end());
    match (mismatch, read) {
        (Some(mismatch), _) => Err(InvalidReply::Mismatch(mismatch)),
        (None, Err(error)) => Err(InvalidReply::NotBulk(error.to_string())),
        (None, Ok(())) => Ok(()),
    }
}

/// The reply: an object that has `items`.
struct ReplyVisitor<'a> {
    sent: &'a mut dyn Iterator<Item = RecordId>,
    each: &'a mut dyn FnMut(usize, ItemStatus, ErrorReason),
    mismatch: &'a mut Option<String>,
}

impl<'de> DeserializeSeed<'de> for ReplyVisitor<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for ReplyVisitor<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with items")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut found_items = false;
        let ReplyVisitor { sent, each, mismatch } = self;
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            if key == "items" && !found_items {
                found_items = true;
                let items = ItemsVisitor { sent: &mut *sent, each: &mut *each, mismatch: &mut *mismatch };
                map.next_value_seed(items)?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        if found_items { Ok(()) } else { Err(A::Error::custom("it has no items")) }
    }
}

/// The list `items`.
struct ItemsVisitor<'a> {
    sent: &'a mut dyn Iterator<Item = RecordId>,
    each: &'a mut dyn FnMut(usize, ItemStatus, ErrorReason),
    mismatch: &'a mut Option<String>,
}

impl<'de> DeserializeSeed<'de> for ItemsVisitor<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for ItemsVisitor<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of items")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let mut index = 0;
        let mut wrong = |words: String| {
            *self.mismatch = Some(words.clone());
            Err(A::Error::custom(words))
        };
        while let Some(item) = list.next_element::<Item<'de>>()? {
            let Some(id) = self.sent.next() else { return wrong(format!("more than {index} items")) };
            let Some(result) = item.create.or(item.index) else {
                return wrong(format!("item {index} is of another action"));
            };
            let named = result.id.parse().ok();
            if named != Some(id) {
                return wrong(format!("item {index} is not {id}"));
            }
            (self.each)(index, result.item_status(), result.why());
            index += 1;
        }
        match self.sent.next() {
            Some(id) => wrong(format!("only {index} items, {id} is missing")),
            None => Ok(()),
        }
    }
}

#[derive(Deserialize)]
struct Item<'a> {
    #[serde(borrow, default)]
    create: Option<ItemResult<'a>>,
    /// As some proxies and older servers call it.
    #[serde(borrow, default)]
    index: Option<ItemResult<'a>>,
}

#[derive(Deserialize)]
struct ItemResult<'a> {
    #[serde(borrow, rename = "_id")]
    id: Cow<'a, str>,
    status: u16,
    #[serde(borrow, default)]
    error: Option<ErrorBody<'a>>,
}

#[derive(Deserialize, Default)]
struct ErrorBody<'a> {
    #[serde(borrow, rename = "type", default)]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    reason: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    caused_by: Option<Cause<'a>>,
}

#[derive(Deserialize)]
struct Cause<'a> {
    #[serde(borrow, default)]
    reason: Option<Cow<'a, str>>,
}

/// Faults with status 400 that are of the index or the cluster, whichever document comes: no shards
/// left, a closed index, an alias that leads nowhere.
const NOT_THE_DOCUMENTS: [&str; 5] = [
    "validation_exception",
    "index_closed_exception",
    "invalid_index_name_exception",
    "index_not_found_exception",
    "cluster_block_exception",
];

impl ItemResult<'_> {
    fn item_status(&self) -> ItemStatus {
        let kind = self.error.as_ref().and_then(|error| error.kind.as_deref()).unwrap_or_default();
        let reason = self.error.as_ref().and_then(|error| error.reason.as_deref()).unwrap_or_default();
        match self.status {
            200..=299 => ItemStatus::Created,
            409 => ItemStatus::Duplicate,
            408 | 429 | 500..=599 => ItemStatus::Busy,
            401 | 403 | 404 => ItemStatus::Refused,
            _ if NOT_THE_DOCUMENTS.contains(&kind) || reason.contains("write index") => ItemStatus::Refused,
            _ => ItemStatus::Rejected,
        }
    }

    fn why(&self) -> ErrorReason {
        let Some(error) = &self.error else {
            return ErrorReason { status: self.status, ..ErrorReason::default() };
        };
        let mut reason = cut(error.reason.as_deref().unwrap_or_default());
        // What is wrong with the value is in there.
        if let Some(cause) = error.caused_by.as_ref().and_then(|cause| cause.reason.as_deref()) {
            reason = format!("{reason}: {}", cut(cause));
        }
        ErrorReason { status: self.status, kind: cut(error.kind.as_deref().unwrap_or_default()), reason }
    }
}

/// Why a whole request was refused: its status, and the error in its body, if there is one.
#[must_use]
pub fn request_error(status: u16, body: &[u8]) -> ErrorReason {
    #[derive(Deserialize)]
    struct ReplyVisitor<'a> {
        #[serde(borrow)]
        error: ErrorBody<'a>,
    }
    match serde_json::from_slice::<ReplyVisitor<'_>>(body) {
        Ok(ReplyVisitor { error }) => ItemResult { id: Cow::Borrowed(""), status, error: Some(error) }.why(),
        // A proxy's page says little, and some of it says much.
        Err(_) => ErrorReason { status, ..ErrorReason::default() },
    }
}

/// On one line, and not too long.
fn cut(text: &str) -> String {
    text.chars().take(REASON_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::log::Id;

    fn ids(count: u64) -> impl Iterator<Item = RecordId> {
        (0..count).map(|seq| RecordId { log: Id([0; 8]), seq })
    }

    fn told(body: &str, sent: u64) -> Result<Vec<(usize, ItemStatus, String)>, InvalidReply> {
        let mut statuses = Vec::new();
        parse(body.as_bytes(), &mut ids(sent), &mut |index, status, why| {
            statuses.push((index, status, why.to_string()));
        })?;
        Ok(statuses)
    }

    fn item(seq: u64, rest: &str) -> String {
        format!("{{\"create\":{{\"_index\":\"onset\",\"_id\":\"{seq:032x}\",{rest}}}}}")
    }

    #[test]
    fn each_record_gets_its_own_item_status() {
        let items = [
            item(0, "\"status\":201,\"result\":\"created\",\"_shards\":{\"total\":2}"),
            item(
                1,
                "\"status\":409,\"error\":{\"type\":\"version_conflict_engine_exception\",\"reason\":\"exists\"}",
            ),
            item(
                2,
                "\"status\":400,\"error\":{\"type\":\"mapper_parsing_exception\",\"reason\":\"field [a]\",\"caused_by\":{\"type\":\"x\",\"reason\":\"For input \\\"b\\\"\"}}",
            ),
            item(
                3,
                "\"status\":429,\"error\":{\"type\":\"es_rejected_execution_exception\",\"reason\":\"queue\"}",
            ),
            item(4, "\"status\":503,\"error\":{\"type\":\"unavailable_shards_exception\",\"reason\":\"x\"}"),
            item(
                5,
                "\"status\":403,\"error\":{\"type\":\"cluster_block_exception\",\"reason\":\"read-only\"}",
            ),
            item(
                6,
                "\"status\":400,\"error\":{\"type\":\"validation_exception\",\"reason\":\"maximum shards open\"}",
            ),
            item(
                7,
                "\"status\":400,\"error\":{\"type\":\"illegal_argument_exception\",\"reason\":\"no write index is defined for alias\"}",
            ),
            item(8, "\"status\":413"),
        ];
        let body = format!("{{\"took\":3,\"errors\":true,\"items\":[{}]}}", items.join(","));
        let statuses = told(&body, 9).unwrap();
        let verdicts: Vec<ItemStatus> = statuses.iter().map(|(_, status, _)| *status).collect();
        use ItemStatus::{Busy, Created, Duplicate, Refused, Rejected};
        assert_eq!(verdicts, [Created, Duplicate, Rejected, Busy, Busy, Refused, Refused, Refused, Rejected]);
        assert_eq!(statuses[2].2, "HTTP 400 mapper_parsing_exception: field [a]: For input \"b\"");
    }

    #[test]
    fn a_bulk_reply_that_does_not_match_its_request_is_invalid() {
        let good = |seq| item(seq, "\"status\":201");
        for (body, what) in [
            (format!("{{\"items\":[{}]}}", good(0)), "too few"),
            (format!("{{\"items\":[{},{},{}]}}", good(0), good(1), good(2)), "too many"),
            (format!("{{\"items\":[{},{}]}}", good(1), good(0)), "another order"),
            (format!("{{\"items\":[{},{{\"delete\":{{}}}}]}}", good(0)), "another action"),
            ("{\"items\":[]}".into(), "none"),
        ] {
            assert!(matches!(told(&body, 2), Err(InvalidReply::Mismatch(_))), "{what}: {:?}", told(&body, 2));
        }
        for body in
            ["", "null", "[]", "{}", "{\"items\":{}}", "<html>", "{\"items\":[{\"create\":{\"_id\":\"x\""]
        {
            assert!(told(body, 2).is_err(), "{body}");
        }
        let trailing = format!("{{\"items\":[{},{}]}}x", good(0), good(1));
        assert!(matches!(told(&trailing, 2), Err(InvalidReply::NotBulk(_))));
    }

    #[test]
    fn long_error_reasons_of_a_server_are_truncated() {
        let reason = "\\n".repeat(5000);
        let body = format!(
            "{{\"items\":[{}]}}",
            item(0, &format!("\"status\":400,\"error\":{{\"type\":\"t\",\"reason\":\"{reason}\"}}"))
        );
        let statuses = told(&body, 1).unwrap();
        assert!(statuses[0].2.len() < 2 * REASON_MAX && !statuses[0].2.contains('\n'));
    }
}

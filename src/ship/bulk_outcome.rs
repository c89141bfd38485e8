//! What the server's reply to a bulk request means: a status for each record, or what to do about the request as a
//! whole. Pure.

use std::time::Duration;

use super::backoff::{Failure, retry_after};
use super::bulk_reply::{self, ErrorReason, ItemStatus};
use crate::clock::Wall;
use crate::log::RecordId;
use crate::net::client::Reply;

/// The outcome of a bulk request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BulkOutcome {
    /// The server accepted the request and gave a status for each record.
    Items,
    /// The request is too large.
    TooLarge,
    /// The request is bad, whichever record makes it so.
    Bad(ErrorReason),
    /// No record was taken: send it again, after this time at the earliest, and log these words.
    Failed(Failure, Option<Duration>, String),
}

/// Classifies a reply and its `body`. The statuses are put into `statuses`, which counts only for `Items`.
pub fn classify(
    answered: Result<Reply, String>,
    body: &[u8],
    now: Wall,
    sent: &mut dyn Iterator<Item = RecordId>,
    statuses: &mut Vec<(ItemStatus, ErrorReason)>,
) -> BulkOutcome {
    statuses.clear();
    let reply = match answered {
        Ok(reply) => reply,
        Err(words) => return BulkOutcome::Failed(Failure::Transient, None, words),
    };
    let after = reply.retry_after.as_deref().and_then(|text| retry_after(text, now));
    let why = || bulk_reply::request_error(reply.status, body);
    match reply.status {
        200..=299 => {
            match bulk_reply::parse(body, sent, &mut |_, status, why| statuses.push((status, why))) {
                Ok(()) => BulkOutcome::Items,
                Err(error) => BulkOutcome::Failed(Failure::Transient, after, error.to_string()),
            }
        }
        413 => BulkOutcome::TooLarge,
        400 => BulkOutcome::Bad(why()),
        408 | 429 | 500..=599 => BulkOutcome::Failed(Failure::Transient, after, why().to_string()),
        401 | 403 => {
            let words =
                "look at [elasticsearch] username, password_file, api_key_file and what that user may do";
            BulkOutcome::Failed(Failure::Persistent, after, format!("{}; {words}", why()))
        }
        _ => {
            let words = "look at [elasticsearch] url and index";
            BulkOutcome::Failed(Failure::Persistent, after, format!("{}; {words}", why()))
        }
    }
}

//! What a server's answer to a bulk request means: verdicts on its records, or what is to be done
//! about the request as a whole. Pure.

use std::time::Duration;

use super::pace::{Setback, retry_after};
use super::verdict::{self, Verdict, Why};
use crate::clock::Wall;
use crate::log::RecordId;
use crate::net::client::Reply;

/// An answer, in short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A verdict on each record.
    Items,
    /// The request is too large.
    TooLarge,
    /// The request is bad, whichever record makes it so.
    Bad(Why),
    /// Nothing of it was taken: try again, after this at the earliest, and say these words.
    Setback(Setback, Option<Duration>, String),
}

/// Reads an answer, its body apart. The verdicts are put into `heard`, which only counts for `Items`.
pub fn judge(
    answered: Result<Reply, String>,
    body: &[u8],
    now: Wall,
    sent: &mut dyn Iterator<Item = RecordId>,
    heard: &mut Vec<(Verdict, Why)>,
) -> Answer {
    heard.clear();
    let reply = match answered {
        Ok(reply) => reply,
        Err(words) => return Answer::Setback(Setback::Passing, None, words),
    };
    let after = reply.retry_after.as_deref().and_then(|text| retry_after(text, now));
    let why = || verdict::whole(reply.status, body);
    match reply.status {
        200..=299 => match verdict::read(body, sent, &mut |_, verdict, why| heard.push((verdict, why))) {
            Ok(()) => Answer::Items,
            Err(error) => Answer::Setback(Setback::Passing, after, error.to_string()),
        },
        413 => Answer::TooLarge,
        400 => Answer::Bad(why()),
        408 | 429 | 500..=599 => Answer::Setback(Setback::Passing, after, why().to_string()),
        401 | 403 => {
            let words =
                "look at [elasticsearch] username, password_file, api_key_file and what that user may do";
            Answer::Setback(Setback::Lasting, after, format!("{}; {words}", why()))
        }
        _ => {
            let words = "look at [elasticsearch] url and index";
            Answer::Setback(Setback::Lasting, after, format!("{}; {words}", why()))
        }
    }
}

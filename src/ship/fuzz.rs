//! Shipping's readers of foreign bytes, as fuzz targets.

use super::batch::Batch;
use super::bulk_reply::{self, ItemStatus};
use super::rejections::{Rejection, notes};
use super::{backoff, settings};
use crate::clock::Wall;
use crate::log::{Id, RecordId};

/// Any bytes as a reply to a bulk request of three records: either it is not believed, or each
/// record has one verdict.
pub fn reply(data: &[u8]) {
    let ids = (1..4).map(|seq| RecordId { log: Id([0; 8]), seq });
    let mut statuses = Vec::new();
    let read = bulk_reply::parse(data, &mut ids.clone(), &mut |index, status, why| {
        statuses.push((index, status, why));
    });
    assert!(statuses.len() <= 3);
    assert!(statuses.iter().enumerate().all(|(at, (index, ..))| at == *index));
    if read.is_ok() {
        assert_eq!(statuses.len(), 3);
        assert!(
            statuses.iter().all(|(_, status, why)| *status != ItemStatus::Created || why.status / 100 == 2)
        );
    }
    let words = bulk_reply::request_error(400, data).to_string();
    assert!(words.len() < 16 << 10 && !words.contains('\n'));
    let _ = backoff::retry_after(&String::from_utf8_lossy(data), Wall(1_795_452_413_007));
}

/// Documents of a log on their way into a bulk request, a line each: what is taken is two lines of it,
/// the second a document, and what is not leaves no trace.
pub fn bulk_request(data: &[u8]) {
    let mut batch = Batch::new(1 << 16);
    let mut taken = Vec::new();
    for (seq, document) in (0..).zip(data.split(|byte| *byte == 0)) {
        let id = RecordId { log: Id(*b"fuzzing!"), seq };
        if batch.push(id, document).is_ok() {
            taken.push((id, document.trim_ascii()));
        }
    }
    assert_eq!(batch.len(), taken.len());
    batch.stamp(Wall(1_795_452_413_007));
    check(&batch, &taken);
    // Every other one is done.
    let mut at = 0;
    batch.settle(0, taken.len(), |index| index % 2 == 0);
    taken.retain(|_| {
        at += 1;
        at % 2 == 0
    });
    check(&batch, &taken);
}

fn check(batch: &Batch, documents: &[(RecordId, &[u8])]) {
    const STAMP: &[u8] = b"{\"uploaded_time\":\"2026-11-23T16:46:53.007Z\",";
    let (body, count) = batch.body(0, usize::MAX);
    assert_eq!(count, documents.len());
    let mut lines = body.split(|byte| *byte == b'\n');
    for (place, (id, document)) in documents.iter().enumerate() {
        assert_eq!(batch.id(place), Some(*id));
        let action = format!("{{\"create\":{{\"_id\":\"{id}\"}}}}");
        assert_eq!(lines.next(), Some(action.as_bytes()));
        let stamped = [STAMP, document.get(1..).unwrap_or_default()].concat();
        assert_eq!(lines.next(), Some(&*stamped));
    }
    assert_eq!((lines.next(), lines.next()), (Some(&b""[..]), None), "no line more");
}

/// The file of what was rejected: a note that is read can be written and read again, and one that is
/// torn costs no other.
pub fn rejects(data: &[u8]) {
    let read = |file: &[u8]| {
        let mut found: Vec<Rejection> = Vec::new();
        notes(file, |note| found.push(note)).expect("memory can be read");
        found
    };
    let found = read(data);
    let lines = found.iter().map(|note| serde_json::to_string(note).expect("plain fields") + "\n");
    let sound = lines.collect::<String>();
    // What is escaped in it may make a line too long to be one of ours.
    let long = sound.lines().any(|line| line.len() > 64 << 10);
    assert!(long || read(sound.as_bytes()) == found);
    if let Some(first) = found.first().filter(|_| !long) {
        let torn = [data, b"\n{\"id\":\"\n", sound.as_bytes()].concat();
        let again = read(&torn);
        assert_eq!((again.len(), again.first()), (2 * found.len(), Some(first)));
    }
}

/// The file of a password or a key: what a header is made of is one line.
pub fn secret(data: &[u8]) {
    if let Some(line) = settings::one_line(data) {
        assert!(!line.is_empty() && !line.contains(char::is_control) && line.len() <= data.len());
    }
}

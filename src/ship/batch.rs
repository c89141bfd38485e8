//! A bulk request in one buffer: for each record a line that says `create` with the record's id, and
//! the document with `uploaded_time` put in (Elasticsearch, "Bulk API"). Pure.

use std::io::Write as _;

use crate::clock::Wall;
use crate::log::RecordId;

const ACTION: &str = "{\"create\":{\"_id\":\"";
const ACTION_END: &str = "\"}}\n";
const STAMP: &str = "{\"uploaded_time\":\"";
/// As long as any time that `Wall` writes.
const STAMP_PLACE: &str = "0000-00-00T00:00:00.000Z";
const STAMP_END: &str = "\",";
/// What a document grows by on its way: its action, its stamp, a line's end.
const OVERHEAD: usize = 160;

/// The position of one record in the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Item {
    id: RecordId,
    start: usize,
    stamp: usize,
    end: usize,
}

/// The bytes are no JSON object on one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotADocument;

/// Records on their way to the server, in the order of the log.
#[derive(Debug)]
pub struct Batch {
    bytes: Vec<u8>,
    items: Vec<Item>,
    /// The batch is full at this many bytes.
    full: usize,
}

impl Batch {
    /// An empty batch that is full at `full` bytes; its last document may exceed that.
    #[must_use]
    pub fn new(full: usize) -> Batch {
        Batch { bytes: Vec::new(), items: Vec::new(), full }
    }

    /// Changes when it is full.
    pub fn set_full(&mut self, full: usize) {
        self.full = full;
    }

    /// Whether nothing is left in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Whether it is to be sent before more is put in.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.bytes.len() >= self.full
    }

    /// Records in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// The id of one of its records.
    #[must_use]
    pub fn id(&self, index: usize) -> Option<RecordId> {
        self.items.get(index).map(|item| item.id)
    }

    /// Appends one record.
    pub fn push(&mut self, id: RecordId, document: &[u8]) -> Result<(), NotADocument> {
        let document = document.trim_ascii();
        let whole = document.starts_with(b"{\"") && document.ends_with(b"}") && !document.contains(&b'\n');
        let inside = document.get(1..).filter(|_| whole).ok_or(NotADocument)?;
        if self.bytes.capacity() == 0 {
            // Once for a batch; what is not used of it is never touched.
            self.bytes.reserve_exact(self.full + document.len() + OVERHEAD);
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(ACTION.as_bytes());
        let _ = write!(self.bytes, "{id}"); // into memory: it cannot fail
        self.bytes.extend_from_slice(ACTION_END.as_bytes());
        self.bytes.extend_from_slice(STAMP.as_bytes());
        let stamp = self.bytes.len();
        self.bytes.extend_from_slice(STAMP_PLACE.as_bytes());
        self.bytes.extend_from_slice(STAMP_END.as_bytes());
        self.bytes.extend_from_slice(inside);
        self.bytes.push(b'\n');
        self.items.push(Item { id, start, stamp, end: self.bytes.len() });
        Ok(())
    }

    /// Writes `now` into `uploaded_time` of each document.
    pub fn stamp(&mut self, now: Wall) {
        for item in &self.items {
            let place = self.bytes.get_mut(item.stamp..item.stamp + STAMP_PLACE.len());
            if let Some(mut place) = place {
                let _ = write!(place, "{now}"); // a time beyond the year 9999 would be cut short
            }
        }
    }

    /// The records from index `from` on that fit into `limit` bytes, and their count: at least one, if there is one.
    #[must_use]
    pub fn body(&self, from: usize, limit: usize) -> (&[u8], usize) {
        let items = self.items.get(from..).unwrap_or_default();
        let Some(first) = items.first() else { return (&[], 0) };
        let fit = items.iter().take_while(|item| item.end - first.start <= limit).count().max(1);
        let end = items.get(fit - 1).map_or(first.end, |last| last.end);
        (self.bytes.get(first.start..end).unwrap_or_default(), fit)
    }

    /// Takes out those records among `count` from `from` on that are done.
    pub fn settle(&mut self, from: usize, count: usize, mut done: impl FnMut(usize) -> bool) {
        let mut index = 0;
        let mut to = 0;
        let bytes = &mut self.bytes;
        self.items.retain_mut(|item| {
            let at = index;
            index += 1;
            if (from..from.saturating_add(count)).contains(&at) && done(at - from) {
                return false;
            }
            bytes.copy_within(item.start..item.end, to);
            let back = item.start - to;
            *item = Item { id: item.id, start: to, stamp: item.stamp - back, end: item.end - back };
            to = item.end;
            true
        });
        self.bytes.truncate(to);
        if self.items.is_empty() {
            // An idle agent keeps none of it.
            (self.bytes, self.items) = (Vec::new(), Vec::new());
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::log::Id;

    fn id(seq: u64) -> RecordId {
        RecordId { log: Id([7; 8]), seq }
    }

    fn batch(documents: &[&str]) -> Batch {
        let mut batch = Batch::new(1 << 20);
        for (seq, document) in documents.iter().enumerate() {
            batch.push(id(seq as u64), document.as_bytes()).unwrap();
        }
        batch
    }

    #[test]
    fn a_batch_has_an_action_and_a_document_line_for_each_record() {
        let mut batch = batch(&["{\"a\":1}", "{\"b\":\"\\n\"}\n"]);
        batch.stamp(Wall(1_795_452_413_007));
        let (body, count) = batch.body(0, usize::MAX);
        assert_eq!(count, 2);
        assert_eq!(
            std::str::from_utf8(body).unwrap(),
            "{\"create\":{\"_id\":\"07070707070707070000000000000000\"}}\n\
             {\"uploaded_time\":\"2026-11-23T16:46:53.007Z\",\"a\":1}\n\
             {\"create\":{\"_id\":\"07070707070707070000000000000001\"}}\n\
             {\"uploaded_time\":\"2026-11-23T16:46:53.007Z\",\"b\":\"\\n\"}\n"
        );
    }

    #[test]
    fn a_document_that_is_no_json_object_on_one_line_is_refused() {
        let mut batch = Batch::new(1000);
        for document in ["", "{}", "[1]", "{\"a\":1", "{\"a\":\n1}", "null"] {
            assert_eq!(batch.push(id(1), document.as_bytes()), Err(NotADocument), "{document}");
        }
        assert!(batch.is_empty());
    }

    #[test]
    fn a_request_body_holds_as_many_records_as_fit_and_at_least_one() {
        let batch = batch(&["{\"a\":1}", "{\"a\":2}", "{\"a\":3}"]);
        let (all, _) = batch.body(0, usize::MAX);
        let one = all.len() / 3;
        for (limit, want) in [(0, 1), (one - 1, 1), (one, 1), (2 * one, 2), (3 * one - 1, 2), (3 * one, 3)] {
            let (body, count) = batch.body(0, limit);
            assert_eq!((body.len(), count), (want * one, want), "{limit}");
        }
        assert_eq!(batch.body(1, one).0, &all[one..2 * one]);
        assert_eq!(batch.body(3, one), (&[][..], 0));
    }

    #[test]
    fn records_that_are_done_leave_the_batch_and_the_rest_keep_their_order() {
        for mask in 0..32_u32 {
            let documents = ["{\"a\":1}", "{\"bb\":22}", "{\"ccc\":333}", "{\"dddd\":4444}", "{\"e\":5}"];
            let mut rest = batch(&documents);
            rest.settle(1, 3, |index| mask >> index & 1 == 1);
            let kept: Vec<usize> =
                (0..5).filter(|at| !(1..4).contains(at) || mask >> (at - 1) & 1 == 0).collect();
            rest.stamp(Wall(0));
            let text = String::from_utf8(rest.body(0, usize::MAX).0.to_vec()).unwrap();
            let lines: Vec<&str> = text.lines().collect();
            assert_eq!(lines.len(), kept.len() * 2);
            for (pair, at) in lines.chunks(2).zip(kept) {
                assert_eq!(pair[0], format!("{{\"create\":{{\"_id\":\"{}\"}}}}", id(at as u64)));
                let inside = documents[at].strip_prefix('{').unwrap();
                assert_eq!(pair[1], format!("{{\"uploaded_time\":\"1970-01-01T00:00:00.000Z\",{inside}"));
            }
        }
    }

    #[test]
    fn an_empty_batch_holds_no_memory() {
        let mut batch = batch(&["{\"a\":1}"]);
        assert!(batch.bytes.capacity() >= 1 << 20);
        batch.settle(0, 1, |_| true);
        assert!(batch.is_empty() && batch.bytes.capacity() == 0);
    }
}

//! Building a bulk request, as benches call it.

use super::batch::Batch;
use crate::clock::Wall;
use crate::log::{Id, RecordId};

/// The documents as one request that is sent now. Its length.
#[must_use]
pub fn bulk(full: usize, documents: &[Vec<u8>], now: Wall) -> usize {
    let mut batch = Batch::new(full);
    for (seq, document) in (0..).zip(documents) {
        assert!(batch.push(RecordId { log: Id([7; 8]), seq }, document).is_ok(), "a document on one line");
    }
    batch.stamp(now);
    let (body, count) = batch.body(0, usize::MAX);
    assert_eq!(count, documents.len());
    body.len()
}

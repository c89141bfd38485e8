//! Shipping's readers of foreign bytes, as fuzz targets.

use super::pace;
use super::verdict::{self, Verdict};
use crate::clock::Wall;
use crate::log::{Id, RecordId};

/// Any bytes as a reply to a bulk request of three records: either it is not believed, or each
/// record has one verdict.
pub fn reply(data: &[u8]) {
    let ids = (1..4).map(|seq| RecordId { log: Id([0; 8]), seq });
    let mut heard = Vec::new();
    let read = verdict::read(data, &mut ids.clone(), &mut |index, verdict, why| {
        heard.push((index, verdict, why));
    });
    assert!(heard.len() <= 3);
    assert!(heard.iter().enumerate().all(|(at, (index, ..))| at == *index));
    if read.is_ok() {
        assert_eq!(heard.len(), 3);
        assert!(heard.iter().all(|(_, verdict, why)| *verdict != Verdict::Created || why.status / 100 == 2));
    }
    let words = verdict::whole(400, data).to_string();
    assert!(words.len() < 16 << 10 && !words.contains('\n'));
    let _ = pace::retry_after(&String::from_utf8_lossy(data), Wall(1_795_452_413_007));
}

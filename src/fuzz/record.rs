//! Real bytes for the corpora: while tests run, what the kernel hands over is written to a folder, a
//! file a record. `fuzz/record` runs them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// So many records of one kind say all that there is to say.
const EACH: u32 = 3;

/// The end of a record this short tells its kind, its length that of a longer one.
const SHORT: usize = 24;

/// Notes these bytes, if the environment says where. A first part of one byte is a kind too.
pub(crate) fn note(target: &str, parts: &[&[u8]]) {
    static SEEN: Mutex<BTreeMap<String, u32>> = Mutex::new(BTreeMap::new());
    let Some(folder) = std::env::var_os("ONSET_RECORD") else { return };
    let (folder, record) = (PathBuf::from(folder).join(target), parts.concat());
    let kind = match (parts, record.last_chunk::<8>()) {
        ([[kind], ..], _) => u64::from(*kind),
        (_, Some(end)) if record.len() <= SHORT => u64::from_be_bytes(*end),
        _ => 0,
    };
    let name = format!("{}-{kind:x}", record.len());
    let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    let count = seen.entry(format!("{target}/{name}")).or_default();
    if *count < EACH {
        *count += 1;
        std::fs::create_dir_all(&folder).expect("the folder of ONSET_RECORD can be written");
        std::fs::write(folder.join(format!("{name}-{count}")), record).expect("it can be written");
    }
}

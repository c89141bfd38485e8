//! Foreign bytes as the cursor's file. It says the last record that was set, or the one before where
//! a write was torn; what is written by a later onset is left alone.

use std::fs;

use super::Scratch;
use crate::fuzz::heap::untouched;
use crate::log::cursor::{BLOCK, CursorSlot, ENTRY, entry, path, peek};
use crate::log::{Cursor, Error, Id, RecordId};

/// Whose cursor it is.
const NAME: &str = "fuzzing";

/// From one place to the other, as it counts in memory.
const APART: usize = 4096;
const _: () = assert!(APART as u64 == BLOCK);

/// Both places.
const FILE: usize = 2 * APART;

/// Takes bytes as the file. With an odd first byte they are changes to a sound one instead, three
/// bytes each, so that a fuzzer need not find checksums.
pub fn cursor(data: &[u8]) {
    let file = match data.split_first() {
        Some((kind, rest)) if kind % 2 == 1 => changed(rest),
        Some((_, rest)) => rest.get(..FILE).unwrap_or(rest).to_vec(),
        None => Vec::new(),
    };
    let scratch = Scratch::new();
    let path = path(&scratch.0, NAME);
    fs::write(&path, &file).expect("the scratch folder can be written");
    let peeked = peek(NAME, &scratch.0);
    let (mut cursor, content) = match Cursor::named(NAME, &scratch.0) {
        Ok(opened) => opened,
        Err(Error::Newer { version, .. }) => {
            assert!(version > 1);
            let there = fs::read(&path).expect("it is still there");
            assert!(there.starts_with(&file), "what a later onset wrote is left alone");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    assert_eq!(content, peeked, "both read the same");
    assert!(!cursor.was_bad() || content.is_none(), "something is said, so nothing is missing");
    assert!(content.is_none_or(|id| file.windows(8).any(|bytes| bytes == id.log.0)), "an id was made up");

    let (one, two) = (id(content, 1), id(content, 2));
    untouched(|| cursor.set(one)).expect("there is room");
    assert_eq!(says(&scratch), Some(one), "what was set is said");
    let before = fs::read(&path).expect("it is there");
    cursor.set(two).expect("there is room");
    assert_eq!(says(&scratch), Some(two));
    // The power failed at any byte of the last write. It may heal what had rotted, which is older.
    let rotten = |at: u64| {
        let from = if at == 0 { 0 } else { APART };
        let mut bytes = [0; ENTRY];
        bytes.iter_mut().zip(file.get(from..).unwrap_or_default()).for_each(|(to, from)| *to = *from);
        CursorSlot::parse(&bytes, at) == CursorSlot::Bad
    };
    if rotten(0) || rotten(1) {
        return;
    }
    let after = fs::read(&path).expect("it is there");
    let torn = usize::from(data.last().copied().unwrap_or(0)) % ENTRY;
    let slot = before.iter().zip(&after).position(|(old, new)| old != new).unwrap_or(0) / APART;
    let end = slot * APART + torn;
    let halves = [after.get(..end), before.get(end..)].map(Option::unwrap_or_default);
    fs::write(&path, halves.concat()).expect("it can be written");
    let left = says(&scratch);
    assert!(left == Some(one) || left == Some(two), "a torn write leaves the one before, not {left:?}");
}

/// Whoever opens it next.
fn says(scratch: &Scratch) -> Option<RecordId> {
    let (cursor, content) = Cursor::named(NAME, &scratch.0).expect("it opens");
    assert!(!cursor.was_bad() || content.is_none());
    assert_eq!(content, peek(NAME, &scratch.0));
    content
}

/// The log goes on from there.
fn id(content: Option<RecordId>, more: u64) -> RecordId {
    let from = content.unwrap_or(RecordId { log: Id(*b"fuzzing!"), seq: 7 });
    RecordId { seq: from.seq / 2 + more, ..from }
}

/// A sound file of two entries, with these changes: place and offset, new byte.
fn changed(changes: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; FILE];
    for (turn, slot) in [(4, 0), (5, APART)] {
        let entry = entry(turn, RecordId { log: Id(*b"fuzzing!"), seq: 1000 + turn });
        bytes.get_mut(slot..slot + ENTRY).unwrap_or_default().copy_from_slice(&entry);
    }
    for change in changes.chunks_exact(3) {
        if let [slot, offset, value] = *change
            && let Some(byte) =
                bytes.get_mut(usize::from(slot % 2) * APART + usize::from(offset) % (ENTRY + 8))
        {
            *byte = value;
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_changed_byte_leaves_a_usable_cursor() {
        for slot in 0..2 {
            for offset in 0..56 {
                cursor(&[1, slot, offset, 0x15]);
            }
        }
    }
}

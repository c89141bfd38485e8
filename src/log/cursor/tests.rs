//! A cursor is what it was told last, what it was told before that, or nothing; never anything else.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

const NAME: &str = "elasticsearch";

/// A folder for one test, gone when the test is.
struct TempDir(PathBuf);

impl TempDir {
    fn new() -> TempDir {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let memory = std::path::Path::new("/dev/shm");
        let root = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let dir = root.join(format!("onset-cursor-{}-{count}", std::process::id()));
        fs::create_dir(&dir).expect("made");
        TempDir(dir)
    }

    fn file(&self) -> PathBuf {
        path(&self.0, NAME)
    }

    fn says(&self) -> Option<RecordId> {
        let (_, says) = Cursor::named(NAME, &self.0).expect("opens");
        assert_eq!(says, peek(NAME, &self.0));
        says
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn id(seq: u64) -> RecordId {
    RecordId { log: Id(*b"the log!"), seq }
}

/// A number out of another (splitmix64).
fn mix(seed: u64) -> u64 {
    let mixed = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[test]
fn a_reopened_cursor_has_the_id_that_was_set_last() {
    let temp = TempDir::new();
    assert_eq!((temp.says(), peek(NAME, &temp.0.join("nowhere"))), (None, None));
    for seq in [1, 2, 3, 1 << 32, SEQ_END - 1, 7] {
        let (mut cursor, _) = Cursor::named(NAME, &temp.0).expect("opens");
        assert!(!cursor.was_bad());
        cursor.set(id(seq)).expect("set");
        cursor.sync().expect("synced");
        assert_eq!(temp.says(), Some(id(seq)));
    }
    let other = RecordId { log: Id(*b"another!"), seq: 5 };
    Cursor::named(NAME, &temp.0).expect("opens").0.set(other).expect("set");
    assert_eq!(temp.says(), Some(other));
    assert_eq!(fs::metadata(temp.file()).expect("there").permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_torn_cursor_write_leaves_the_old_or_the_new_id() {
    let temp = TempDir::new();
    let (mut cursor, _) = Cursor::named(NAME, &temp.0).expect("opens");
    let mut before = fs::read(temp.file()).expect("a file");
    for seq in 1..6 {
        cursor.set(id(seq)).expect("set");
        let after = fs::read(temp.file()).expect("a file");
        let (old, new) = ((seq > 1).then(|| id(seq - 1)), Some(id(seq)));
        let changed: Vec<_> = (0..after.len()).filter(|at| after[*at] != before[*at]).collect();
        let (first, last) = (changed[0], changed[changed.len() - 1]);
        let block = usize::try_from(BLOCK).expect("small");
        assert_eq!(first / block, last / block, "one place is written");
        for at in first..=last + 1 {
            let head = [&after[..at], &before[at..]].concat();
            let tail = [&before[..at], &after[at..]].concat();
            let lost = [&before[..first], &vec![0; at - first], &after[at..]].concat();
            for (torn, bytes) in [("head", head), ("tail", tail), ("zeros", lost)] {
                fs::write(temp.file(), &bytes).expect("written");
                let says = temp.says();
                assert!(says == old || says == new, "{torn} at {at}: {says:?}");
                assert!(bytes != after || says == new);
            }
        }
        fs::write(temp.file(), &after).expect("written");
        before = after;
    }
}

#[test]
fn a_corrupt_byte_anywhere_leaves_an_id_that_was_set() {
    let temp = TempDir::new();
    let (mut cursor, _) = Cursor::named(NAME, &temp.0).expect("opens");
    cursor.set(id(7)).expect("set");
    cursor.set(id(8)).expect("set");
    let sound = fs::read(temp.file()).expect("a file");
    let block = usize::try_from(BLOCK).expect("small");
    for at in (0..ENTRY).chain(block..block + ENTRY) {
        for bit in 0..8 {
            let mut bytes = sound.clone();
            bytes[at] ^= 1 << bit;
            fs::write(temp.file(), &bytes).expect("written");
            let rotten = if at < block { Some(id(7)) } else { Some(id(8)) };
            assert_eq!(temp.says(), rotten, "byte {at}");
        }
    }
}

#[test]
fn a_cursor_file_of_garbage_is_reported_as_bad() {
    let temp = TempDir::new();
    for round in 0..500 {
        let len = usize::try_from(mix(round) % 9000).expect("small");
        let noise: Vec<u8> = (0..len as u64).map(|at| mix(round << 20 | at).to_be_bytes()[0]).collect();
        fs::write(temp.file(), &noise).expect("written");
        let (mut cursor, says) = Cursor::named(NAME, &temp.0).expect("opens");
        assert_eq!((says, cursor.was_bad()), (None, len > 0), "{len} bytes");
        cursor.set(id(round)).expect("set");
        assert_eq!(temp.says(), Some(id(round)), "{len} bytes");
    }
    // An entry in the other one's place, and numbers that only a forger writes.
    let slot = |at: u64, bytes: &[u8]| {
        let mut file = vec![0; 2 * 4096];
        let at = usize::try_from(at * BLOCK).expect("small");
        file[at..at + ENTRY].copy_from_slice(bytes);
        file
    };
    for forged in [
        slot(0, &entry(1, id(3))),
        slot(1, &entry(2, id(3))),
        slot(0, &entry(TURN_END, id(3))),
        slot(0, &entry(2, id(SEQ_END))),
    ] {
        fs::write(temp.file(), forged).expect("written");
        let (cursor, says) = Cursor::named(NAME, &temp.0).expect("opens");
        assert_eq!((says, cursor.was_bad()), (None, true));
    }
}

#[test]
fn a_later_format_is_refused_and_not_written_over() {
    let temp = TempDir::new();
    let mut later = entry(2, id(9));
    later[8] = 2;
    let sum = crc32fast::hash(&later[..ENTRY - 4]);
    later[ENTRY - 4..].copy_from_slice(&sum.to_le_bytes());
    let (mut cursor, _) = Cursor::named(NAME, &temp.0).expect("opens");
    fs::remove_file(temp.file()).expect("deleted");
    fs::write(temp.file(), later).expect("written");
    let error = Cursor::named(NAME, &temp.0).expect_err("refused").to_string();
    assert!(
        error.contains("elasticsearch.cursor has log format 2, but this onset only knows up to 1"),
        "{error}"
    );
    cursor.set(id(1)).expect_err("refused");
    assert!(fs::read(temp.file()).expect("a file").starts_with(&later));
}

#[test]
fn a_deleted_cursor_is_created_again_with_its_directory() {
    let temp = TempDir::new();
    let (mut cursor, _) = Cursor::named(NAME, &temp.0).expect("opens");
    cursor.set(id(1)).expect("set");
    fs::remove_file(temp.file()).expect("deleted");
    cursor.set(id(2)).expect("set");
    assert_eq!(temp.says(), Some(id(2)));
    fs::remove_dir_all(&temp.0).expect("deleted");
    assert_eq!(cursor.set(id(3)).expect_err("no folder").kind(), io::ErrorKind::NotFound);
    fs::create_dir(&temp.0).expect("made");
    cursor.set(id(3)).expect("set");
    assert_eq!(temp.says(), Some(id(3)));
    let aside = temp.0.with_extension("aside");
    fs::rename(&temp.0, &aside).expect("renamed");
    fs::create_dir(&temp.0).expect("made");
    cursor.set(id(4)).expect("set");
    assert_eq!((temp.says(), peek(NAME, &aside)), (Some(id(4)), Some(id(3))));
    fs::remove_dir_all(aside).expect("deleted");
}

#[test]
fn each_output_has_a_cursor_of_its_own() {
    let temp = TempDir::new();
    let names = ["elasticsearch", "notify-2", "a"];
    for (seq, name) in (1..).zip(names) {
        Cursor::named(name, &temp.0).expect("opens").0.set(id(seq)).expect("set");
    }
    // A torn or foreign file of one is nothing to the others.
    fs::write(path(&temp.0, "notify-2"), [7; 9000]).expect("written");
    fs::write(temp.0.join("No Name.cursor"), entry(2, id(9))).expect("written");
    let says: Vec<_> = names.map(|name| peek(name, &temp.0)).into();
    assert_eq!(says, [Some(id(1)), None, Some(id(3))]);
    let listed = list(&temp.0).expect("a folder");
    let want = [("a", Some(id(3))), ("elasticsearch", Some(id(1))), ("notify-2", None)];
    assert_eq!(listed, want.map(|(name, id)| (name.to_owned(), id)));
    for name in ["", "..", "a/b", "A", "a.b", &"a".repeat(33)] {
        let error = Cursor::named(name, &temp.0).expect_err("refused").to_string();
        assert!(error.contains(&format!("no output can be called \"{name}\"")), "{error}");
    }
}

#[test]
fn the_unnamed_cursor_of_an_earlier_onset_is_migrated_and_the_further_one_is_kept() {
    let other = RecordId { log: Id(*b"another!"), seq: 99 };
    let bad = vec![7; 48];
    let file = |id: Option<RecordId>| id.map(|id| entry(2, id).to_vec());
    for (old, new, says) in [
        (file(Some(id(5))), None, Some(id(5))),
        (file(Some(id(5))), file(Some(id(3))), Some(id(5))),
        (file(Some(id(5))), file(Some(id(8))), Some(id(8))),
        (file(Some(other)), file(Some(id(8))), Some(id(8))),
        (file(Some(id(5))), Some(bad.clone()), Some(id(5))),
        (Some(bad.clone()), file(Some(id(8))), Some(id(8))),
        (Some(bad), None, None),
        (None, file(Some(id(8))), Some(id(8))),
        (None, None, None),
    ] {
        let temp = TempDir::new();
        let unnamed = temp.0.join("shipped");
        for (path, bytes) in [(&unnamed, &old), (&temp.file(), &new)] {
            if let Some(bytes) = bytes {
                fs::write(path, bytes).expect("written");
            }
        }
        migrate_unnamed(&temp.0).expect("renamed");
        assert!(!unnamed.exists());
        assert_eq!(peek(NAME, &temp.0), says, "{old:?} {new:?}");
        migrate_unnamed(&temp.0).expect("a second time changes nothing");
        assert_eq!(temp.says(), says);
    }
}

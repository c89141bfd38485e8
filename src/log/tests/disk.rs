//! Disks that fill up, folders that vanish, budgets and syncs.

use std::process::Command;

use super::*;

/// A small filesystem of its own.
struct Mount(Scratch);

impl Mount {
    fn new(size: &str) -> Option<Mount> {
        let scratch = Scratch::new();
        fs::create_dir(&scratch.0).expect("made");
        let options = format!("size={size}");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&scratch.0).status();
        mounted.is_ok_and(|status| status.success()).then_some(Mount(scratch))
    }
}

impl Mount {
    /// As much room as this, and as many files.
    fn resize(&self, pages: usize, files: usize) {
        let options = format!("remount,size={}k,nr_inodes={files}", 4 * pages);
        let resized = Command::new("mount").args(["-o", &options]).arg(&self.0.0).status();
        assert!(resized.is_ok_and(|status| status.success()), "{options}");
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0.0).status();
    }
}

/// Tries until an append goes through.
fn recovers(writer: &mut Writer) -> RecordId {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        match writer.append(|_, to| fill(to, b"back")) {
            Ok(Some(id)) => return id,
            other => assert!(Instant::now() < until, "{other:?}"),
        }
        std::thread::yield_now();
    }
}

#[test]
fn a_full_disk_is_an_error_and_the_log_goes_on_once_there_is_room() {
    let Some(mount) = Mount::new("256k") else {
        eprintln!("SKIPPED: a_full_disk_is_an_error...: only root can mount a tmpfs");
        return;
    };
    let dir = mount.0.0.join("log");
    let config = config::Log { dir: dir.clone(), ..mount.0.log() };
    let (mut writer, _) = Writer::open(&config).expect("opens");
    let filler = mount.0.0.join("filler");
    fs::write(&filler, vec![1; 150 << 10]).expect("fits");
    let mut kept = 0;
    let error = loop {
        match writer.append(|_, to| fill(to, &[3; 4000])) {
            Ok(_) => kept += 1,
            Err(Error::Stalled { .. }) => {}
            Err(error) => break error.to_string(),
        }
    };
    assert!(error.contains("No space left on device") && error.contains("make room there"), "{error}");
    assert!(writer.counters().failed_appends > 0 && writer.counters().create_failures > 0);
    assert_eq!(read(&dir).len(), kept);
    fs::remove_file(filler).expect("deleted");
    let id = recovers(&mut writer);
    assert_eq!(read(&dir).last().map(|record| record.0), Some(id));
    assert_eq!(read(&dir).len(), kept + 1);
}

#[test]
fn the_log_never_exceeds_its_budget_and_dropped_records_are_counted() {
    let scratch = Scratch::new();
    let budget = 3 * SEGMENT;
    let (mut writer, _) = Writer::open(&config::Log { budget, ..scratch.log() }).expect("opens");
    let lock = 16; // the pid in the lock file
    for _ in 0..300 {
        put(&mut writer, &[1; 2000]);
        assert!(used(&scratch.0) <= budget + lock, "{}", used(&scratch.0));
    }
    let left = read(&scratch.0).len() as u64;
    let counters = writer.counters();
    assert!(left > 0);
    assert_eq!((counters.records, counters.bytes), (300, 600_000));
    // The helper thread may be between deleting and counting.
    writer.flush().expect("synced");
    assert_eq!(writer.counters().dropped_by_budget + read(&scratch.0).len() as u64, 300);
    drop(writer);
    let less = config::Log { budget: 2 * SEGMENT, ..scratch.log() };
    let (writer, _) = Writer::open(&less).expect("opens");
    assert!(used(&scratch.0) <= less.budget + lock);
    drop(writer);
}

#[test]
fn a_deleted_log_directory_is_created_and_locked_again() {
    let scratch = Scratch::new();
    let (mut writer, _) = Writer::open(&scratch.log()).expect("opens");
    put(&mut writer, b"gone");
    fs::remove_dir_all(&scratch.0).expect("deleted");
    a_look_later();
    let id = recovers(&mut writer);
    assert_eq!(read(&scratch.0), [(id, b"back".to_vec())]);
    assert_eq!(writer.counters().lost_segments, 1);
    assert!(matches!(Writer::open(&scratch.log()), Err(Error::Held { .. })));
}

#[test]
fn a_segment_truncated_or_deleted_under_the_writer_is_abandoned() {
    let scratch = Scratch::new();
    let (mut writer, _) = Writer::open(&scratch.log()).expect("opens");
    let kept = put(&mut writer, b"kept");
    let first = last(&scratch.0);
    fs::OpenOptions::new().write(true).open(&first).and_then(|file| file.set_len(200)).expect("cut");
    let after = recovers(&mut writer);
    assert_eq!(read(&scratch.0).iter().map(|record| record.0).collect::<Vec<_>>(), [kept, after]);
    fs::remove_file(last(&scratch.0)).expect("deleted");
    a_look_later();
    let newest = recovers(&mut writer);
    assert_eq!(read(&scratch.0).iter().map(|record| record.0).collect::<Vec<_>>(), [kept, newest]);
    assert_eq!(writer.counters().lost_segments, 2);
}

#[test]
fn records_are_synced_at_once_periodically_or_by_a_flush() {
    let scratch = Scratch::new();
    let always = config::Log { sync: Duration::ZERO, ..scratch.log() };
    let (mut writer, _) = Writer::open(&always).expect("opens");
    for _ in 0..40 {
        put(&mut writer, &[1; 3000]);
        assert_eq!(writer.counters().unsynced_records, 0);
    }
    drop(writer);
    let (mut writer, _) = Writer::open(&scratch.log()).expect("opens");
    put(&mut writer, b"the first is synced soon");
    let until = Instant::now() + Duration::from_secs(20);
    while writer.counters().unsynced_records > 0 && Instant::now() < until {
        std::thread::yield_now();
    }
    put(&mut writer, b"the second has an hour");
    assert_eq!(writer.counters().unsynced_records, 1);
    writer.flush().expect("synced");
    assert_eq!(writer.counters().unsynced_records, 0);
    assert_eq!(writer.counters().sync_failures, 0);
}

/// With so much room: a start is refused in clear words or goes well; after that a full disk is
/// counted, what is said to be there is there, and with room again it goes on.
fn lives_with(mount: &Mount, pages: usize, files: usize) -> bool {
    mount.resize(pages, files);
    let dir = mount.0.0.join("log");
    let config = config::Log { dir: dir.clone(), budget: 1 << 30, ..mount.0.log() };
    let clear = |error: &str| {
        assert!(error.contains("No space left on device") && error.contains("make room there"), "{error}");
        assert!(error.contains(&*dir.to_string_lossy()), "{error}");
    };
    let opened = Writer::open(&config);
    let (mut writer, _) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            clear(&error.to_string());
            assert!(read_if_any(&dir).is_empty());
            return false;
        }
    };
    let mut cursor = match Cursor::named(OUTPUT, &dir) {
        Ok((cursor, _)) => Some(cursor),
        Err(error) => {
            clear(&error.to_string());
            None
        }
    };
    let mut kept = Vec::new();
    loop {
        match writer.append(|_, to| fill(to, &[3; 4000])) {
            Ok(id) => kept.extend(id),
            Err(Error::Stalled { .. }) => {}
            Err(error) => break clear(&error.to_string()),
        }
        if let (Some(cursor), Some(id)) = (&mut cursor, kept.last()) {
            cursor.set(*id).expect("it has its blocks already");
        }
    }
    assert!(writer.counters().failed_appends > 0 && writer.counters().create_failures > 0);
    assert_eq!(read(&dir).iter().map(|record| record.0).collect::<Vec<_>>(), kept);
    mount.resize(400, 400);
    kept.push(recovers(&mut writer));
    assert_eq!(read(&dir).iter().map(|record| record.0).collect::<Vec<_>>(), kept);
    writer.flush().expect("synced");
    drop(writer);
    if cursor.is_none() {
        Cursor::named(OUTPUT, &dir).expect("there is room now").0.set(kept[0]).expect("set");
    }
    let (writer, recovered) = Writer::open(&config).expect("opens");
    assert_eq!((recovered.torn_bytes, recovered.bad_records), (0, 0));
    assert!(verify(&dir).expect("readable").sound());
    drop(writer);
    true
}

fn read_if_any(dir: &Path) -> Vec<(RecordId, Vec<u8>)> {
    if dir.exists() { read(dir) } else { Vec::new() }
}

#[test]
fn a_full_disk_at_any_write_is_reported_or_counted_and_loses_no_record() {
    // A segment is 16 pages, the cursor is 2, the lock 1.
    let pages = (1..40).map(|pages| (pages, 400));
    // The filesystem's own folder, the log's, the lock, a segment, the next one, the cursor.
    let files = (1..12).map(|files| (400, files));
    let rounds: Vec<_> = pages.chain(files).collect();
    // Each waits a second for the next try: several at a time.
    let some = |rounds: &[(usize, usize)]| {
        let mut opened = 0;
        for (pages, files) in rounds {
            // Its own each time: a thread that syncs may hold files of the round before for a while.
            let mount = Mount::new("1600k")?;
            opened += usize::from(lives_with(&mount, *pages, *files));
        }
        Some(opened)
    };
    let opened: Option<usize> = std::thread::scope(|scope| {
        let parts: Vec<_> = (0..8)
            .map(|part| {
                let part: Vec<_> = rounds.iter().copied().skip(part).step_by(8).collect();
                scope.spawn(move || some(&part))
            })
            .collect();
        parts.into_iter().map(|part| part.join().expect("no round fails")).sum()
    });
    match opened {
        Some(opened) => assert!(opened > 15 && rounds.len() - opened > 15, "{opened} of {}", rounds.len()),
        None => eprintln!("SKIPPED: wherever_the_disk_is_full...: only root can mount a tmpfs"),
    }
}

//! The walk over sources that no disk gives on demand.

use std::cell::Cell;

use super::*;

/// A disk with a sector that cannot be read.
struct BadSector<'a>(&'a [u8], Range<u64>);

impl Source for BadSector<'_> {
    fn read(&self, to: &mut [u8], offset: u64) -> io::Result<usize> {
        let before = self.1.start.saturating_sub(offset);
        if self.1.contains(&offset) {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        let most = if before > 0 { usize::try_from(before).unwrap_or(usize::MAX) } else { usize::MAX };
        let len = to.len().min(most);
        self.0.read(&mut to[..len], offset)
    }

    fn size(&self) -> io::Result<u64> {
        self.0.size()
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        self.0.next_data(offset)
    }
}

fn segment(records: u64) -> Vec<u8> {
    let log = Id(*b"somelog.");
    let mut bytes = Header { log, first: 0, size: 0 }.bytes().to_vec();
    for seq in 0..records {
        let head = Head::new(RecordId { log, seq }, &[1; 992]).bytes(bytes.len() as u64);
        bytes.extend(head.expect("a short body"));
        bytes.extend([1; 992]);
    }
    bytes
}

fn walk(source: &(impl Source + ?Sized)) -> (Vec<u64>, u64) {
    let mut scan = Scan::default();
    scan.begin(source, 0).expect("a header");
    let (mut seqs, mut bad) = (Vec::new(), 0);
    loop {
        match scan.next(source).expect("readable") {
            Step::Record { id, .. } => seqs.push(id.seq),
            Step::Bad { records } => bad += records,
            Step::End { .. } => return (seqs, bad),
        }
    }
}

#[test]
fn a_sector_that_cannot_be_read_loses_the_records_in_it() {
    let bytes = segment(100);
    let (seqs, bad) = walk(&BadSector(&bytes, 8192..12288));
    // Records are 1024 bytes from 64 on: those that begin at 7232 to 11328 touch the sector.
    assert_eq!(seqs, (0..7).chain(12..100).collect::<Vec<_>>());
    assert_eq!(bad, 5);
    let (seqs, _) = walk(&BadSector(&bytes, 0..4096));
    assert_eq!(seqs, (4..100).collect::<Vec<_>>());
}

#[test]
fn a_copied_record_is_none_where_it_was_copied_to() {
    let mut bytes = segment(3);
    let copy = bytes[64..64 + 1024].to_vec();
    bytes.extend(copy);
    assert_eq!(walk(&bytes[..]), (vec![0, 1, 2], 0));
    let mut elsewhere = segment(3);
    elsewhere[64..64 + 1024].copy_from_slice(&bytes[64 + 1024..64 + 2048]);
    assert_eq!(walk(&elsewhere[..]), (vec![1, 2], 1));
}

#[test]
fn heads_that_promise_more_than_there_is_cost_no_time() {
    let log = Id(*b"somelog.");
    let mut bytes = Header { log, first: 0, size: 0 }.bytes().to_vec();
    while bytes.len() < 4 << 20 {
        let mut head = Head::new(RecordId { log, seq: 5 }, b"");
        head.len = record::BODY_MAX;
        bytes.extend(head.bytes(bytes.len() as u64).expect("a length that may be"));
    }
    assert_eq!(walk(&bytes[..]), (vec![], 0));
}

/// A file, and how much of it was read.
struct Counted(File, Cell<usize>);

impl Source for Counted {
    fn read(&self, to: &mut [u8], offset: u64) -> io::Result<usize> {
        let got = self.0.read(to, offset)?;
        self.1.set(self.1.get() + got);
        Ok(got)
    }

    fn size(&self) -> io::Result<u64> {
        self.0.size()
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        self.0.next_data(offset)
    }
}

#[test]
fn asking_for_more_at_the_end_does_not_read_the_empty_rest() {
    let path = std::env::temp_dir().join(format!("onset-scan-{}", std::process::id()));
    std::fs::write(&path, segment(10)).expect("written");
    let file = File::options().write(true).open(&path).expect("there");
    crate::sys::fallocate(&file, 64 << 20).expect("a filesystem that can");
    let counted = Counted(calls::open(&path).expect("there"), Cell::new(0));
    std::fs::remove_file(&path).expect("deleted");
    let mut scan = Scan::default();
    scan.begin(&counted, 0).expect("a header");
    for _ in 0..10 {
        assert!(matches!(scan.next(&counted), Ok(Step::Record { .. })));
    }
    for _ in 0..5 {
        assert_eq!(scan.next(&counted).expect("readable"), Step::End { torn: 0 });
    }
    assert!(counted.1.get() < 4 << 20, "{} bytes were read", counted.1.get());
}

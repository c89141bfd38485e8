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
fn a_record_copied_to_another_offset_is_invalid() {
    let mut bytes = segment(3);
    let copy = bytes[64..64 + 1024].to_vec();
    bytes.extend(copy);
    assert_eq!(walk(&bytes[..]), (vec![0, 1, 2], 0));
    let mut elsewhere = segment(3);
    elsewhere[64..64 + 1024].copy_from_slice(&bytes[64 + 1024..64 + 2048]);
    assert_eq!(walk(&elsewhere[..]), (vec![1, 2], 1));
}

#[test]
fn forged_heads_with_long_bodies_cost_no_time() {
    let log = Id(*b"somelog.");
    let mut bytes = Header { log, first: 0, size: 0 }.bytes().to_vec();
    while bytes.len() < 4 << 20 {
        let mut head = Head::new(RecordId { log, seq: 5 }, b"");
        head.len = record::BODY_MAX;
        bytes.extend(head.bytes(bytes.len() as u64).expect("a length that may be"));
    }
    assert_eq!(walk(&bytes[..]), (vec![], 0));
}

/// A source, and how much of it was read.
struct Counted<S>(S, Cell<usize>);

impl<S: Source> Source for Counted<S> {
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
fn polling_at_the_end_does_not_read_the_empty_rest() {
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

/// A segment that is still written, all of whose rest is data.
struct Written(Cell<Vec<u8>>);

impl Written {
    fn change(&self, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = self.0.take();
        change(&mut bytes);
        self.0.set(bytes);
    }

    fn with<T>(&self, look: impl FnOnce(&[u8]) -> T) -> T {
        let bytes = self.0.take();
        let seen = look(&bytes);
        self.0.set(bytes);
        seen
    }

    /// Puts the record of this number in its place: each is 1024 bytes.
    fn append(&self, seq: u64) {
        self.change(|bytes| {
            let from = HEADER + usize::try_from(seq).expect("few") * 1024;
            bytes[from..from + 1024].copy_from_slice(&segment(seq + 1)[from..]);
        });
    }
}

impl Source for Written {
    fn read(&self, to: &mut [u8], offset: u64) -> io::Result<usize> {
        self.with(|bytes| bytes.read(to, offset))
    }

    fn size(&self) -> io::Result<u64> {
        self.with(<[u8]>::size)
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        self.with(|bytes| bytes.next_data(offset))
    }
}

/// A segment with this many records, and a scan that has come to its end.
fn followed(records: u64, size: usize) -> (Counted<Written>, Scan) {
    let mut bytes = segment(records);
    bytes.resize(size, 0);
    let source = Counted(Written(Cell::new(bytes)), Cell::new(0));
    let mut scan = Scan::default();
    scan.begin(&source, 0).expect("a header");
    while matches!(scan.next(&source).expect("readable"), Step::Record { .. }) {}
    scan.next(&source).expect("readable");
    source.1.set(0);
    (source, scan)
}

fn seq(step: Step) -> Option<u64> {
    match step {
        Step::Record { id, .. } => Some(id.seq),
        _ => None,
    }
}

#[test]
fn following_an_idle_segment_reads_a_head_at_a_time_also_where_its_rest_is_cached() {
    let (source, mut scan) = followed(10, 16 << 20);
    for _ in 0..500 {
        assert_eq!(scan.next(&source).expect("readable"), Step::End { torn: 0 });
    }
    assert_eq!(source.1.get(), 500 * HEAD, "bytes read");
    for _ in 0..LOOKS_MAX {
        assert_eq!(scan.next(&source).expect("readable"), Step::End { torn: 0 });
    }
    let walked = 16 << 20;
    assert!((walked..walked + (1 << 20)).contains(&source.1.get()), "and now and then all of it");
    source.0.append(10);
    assert_eq!(seq(scan.next(&source).expect("readable")), Some(10), "the next record is seen at once");
}

#[test]
fn leftovers_of_a_longer_document_cost_a_follower_little_and_hide_no_record() {
    let (source, mut scan) = followed(10, 16 << 20);
    source.0.change(|bytes| bytes[HEADER + 10 * 1024 + HEAD..][..600 << 10].fill(b'?'));
    source.0.append(9); // as it was: only what is behind it has changed, and that is no record
    let torn = Step::End { torn: (600 << 10) + HEAD as u64 };
    let found = (0..2 * LOOKS_MAX).find(|_| scan.next(&source).expect("readable") == torn);
    assert!(found.is_some(), "within a minute");
    scan.next(&source).expect("readable");
    source.1.set(0);
    for _ in 0..500 {
        assert_eq!(scan.next(&source).expect("readable"), torn);
    }
    assert!(source.1.get() <= 500 * (usize::try_from(TORN_READ).expect("small") + 2 * HEAD));
    source.0.append(10);
    assert_eq!(seq(scan.next(&source).expect("readable")), Some(10));
}

#[test]
fn a_follower_reads_a_record_behind_a_corrupt_one() {
    let rots: [fn(&mut [u8]); 4] = [
        |record| record[5] ^= 1,
        |record| record[40] ^= 1,
        |record| record[..HEAD].fill(0),
        |record| record.fill(0),
    ];
    for (place, rot) in rots.into_iter().enumerate() {
        let (source, mut scan) = followed(10, 1 << 20);
        source.0.append(10);
        source.0.change(|bytes| rot(&mut bytes[HEADER + 10 * 1024..][..1024]));
        let unseen = u32::from(place >= 2);
        for _ in 0..3 {
            assert!(matches!(scan.next(&source).expect("readable"), Step::End { .. }), "{place}");
        }
        source.0.append(11);
        // Where nothing is left of its head, only the walk that comes now and then finds what is behind.
        let most = 1 + unseen * LOOKS_MAX;
        let mut steps = (0..most).map(|_| scan.next(&source).expect("readable"));
        let found = steps.find(|step| !matches!(step, Step::End { .. }));
        assert_eq!(found, Some(Step::Bad { records: 1 }), "{place}");
        assert_eq!(seq(scan.next(&source).expect("readable")), Some(11));
    }
}

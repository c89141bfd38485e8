//! Recovery when a writer opens a log: finds the log's id, where it ends, and which record numbers are free.
//! Only the last segment is read whole; of the others only the headers are.

use std::fs::File;
use std::io;

use super::log_dir::{self, LogDir, NEXT, SegmentFile};
use super::record::{self, HEAD, HEADER, Header, ParsedHeader};
use super::scan::{Scan, Step};
use super::{Error, Id, RecordId, calls};
use crate::config;

/// What recovery found when the log was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Segments, before a new one was created.
    pub segments: u64,
    /// Records in the last segment.
    pub records: u64,
    /// Bytes behind the last record, which are zeroed now.
    pub torn_bytes: u64,
    /// Corrupt records in the last segment.
    pub bad_records: u64,
    /// Empty segments, which were deleted.
    pub empty_segments: u64,
}

/// The last segment, and where its records end.
pub(super) struct LastSegment {
    pub(super) first: u64,
    pub(super) size: u64,
    pub(super) position: u64,
    pub(super) torn: u64,
}

impl LastSegment {
    /// Whether the segment has room for the largest record, and the configured size.
    pub(super) fn takes(&self, config: &config::Log) -> bool {
        let need = record::footprint(config.document).saturating_add(HEAD) as u64;
        self.size == config.segment && self.size.saturating_sub(self.position) >= need
    }
}

/// Where a new writer resumes the log.
pub(super) struct ResumePoint {
    /// The id of the run that begins now.
    pub(super) id: Id,
    /// Its first number.
    pub(super) seq: u64,
    /// The last segment, if records can be appended to it.
    pub(super) end: Option<LastSegment>,
}

impl ResumePoint {
    /// Finds it in the directory. Where segments of several logs are there, `cursors` say which one is the writer's.
    pub(super) fn find(
        log_dir: &LogDir,
        cursors: &[(String, Option<RecordId>)],
    ) -> Result<(ResumePoint, RecoveryReport), Error> {
        adopt(log_dir)?;
        let mut recovered = RecoveryReport::default();
        let segments = log_dir::list(log_dir.path())?;
        recovered.segments = segments.len() as u64;
        let mut all = Vec::with_capacity(segments.len());
        for listed in segments {
            all.push((listed, Walk::begin(log_dir, listed)?));
        }
        let random = Id(calls::random().map_err(Error::io("make an id for", log_dir.path()))?);
        let furthest = |known: &dyn Fn(Id) -> bool| {
            let done = cursors.iter().filter_map(|(_, done)| *done);
            done.filter(|id| known(id.log)).max_by_key(|id| id.seq)
        };
        // Of a log that is gone but for its cursors, the number goes on: what comes is behind what was shipped.
        let gone = furthest(&|_| true)
            .and_then(|shipped| Some((shipped.log.next(random), record::next_run(shipped.seq)?)));
        let shipped = furthest(&|log| all.iter().any(|(_, walk)| walk.is_of(log)));
        // Numbers that are known to have been given out, whatever is left of their records.
        let mut least = shipped.map_or(0, |shipped| shipped.seq + 1);
        let mut last = true;
        while let Some((listed, mut walk)) = all.pop() {
            let torn = walk.finish(log_dir, listed, &mut recovered)?;
            // Someone may have renamed the file: what is in it is not written over.
            least = least.max(listed.first + u64::from(walk.scan.offset() > HEADER as u64));
            let Some(log) = walk.scan.log() else {
                log_dir::remove(&log_dir::segment_path(log_dir.path(), listed.first))?;
                recovered.empty_segments += 1;
                least = least.max(listed.first + 1);
                continue;
            };
            if shipped.is_some_and(|shipped| !shipped.log.same_log(log)) {
                (recovered.records, recovered.bad_records, last) = (0, 0, false);
                continue; // copied in
            }
            recovered.torn_bytes = torn;
            least = least.max(walk.scan.floor()).max(strayed(log_dir, all, log)?);
            // A header without a record has begun its run too: what comes under another id is of a later one.
            let begun = least.saturating_sub(u64::from(walk.scan.offset() > HEADER as u64));
            let seq = record::next_run(begun);
            let seq = seq.ok_or_else(|| Error::Exhausted { dir: log_dir.path().into() })?;
            let whole =
                last && matches!(walk.header, ParsedHeader::Sound(header) if header.size == listed.size);
            let end =
                LastSegment { first: listed.first, size: listed.size, position: walk.scan.offset(), torn };
            return Ok((ResumePoint { id: log.next(random), seq, end: whole.then_some(end) }, recovered));
        }
        let (id, seq) = gone.unwrap_or((random, 0));
        Ok((ResumePoint { id, seq, end: None }, recovered))
    }
}

/// The number behind all records in segments of `log` whose name is not that of their first record: the newest
/// record may be in one of them.
fn strayed(log_dir: &LogDir, segments: Vec<(SegmentFile, Walk)>, log: Id) -> Result<u64, Error> {
    let mut least = 0;
    for (listed, mut walk) in segments {
        if matches!(walk.header, ParsedHeader::Sound(header) if header.first != listed.first && header.log.same_log(log))
        {
            walk.finish(log_dir, listed, &mut RecoveryReport::default())?;
            least = least.max(walk.scan.floor());
        }
    }
    Ok(least)
}

/// A walk through one segment.
struct Walk {
    file: File,
    header: ParsedHeader,
    scan: Scan,
}

impl Walk {
    fn begin(log_dir: &LogDir, listed: SegmentFile) -> Result<Walk, Error> {
        let path = log_dir::segment_path(log_dir.path(), listed.first);
        let file = calls::open(&path).map_err(Error::io("open", &path))?;
        let mut scan = Scan::default();
        let header = scan.begin(&file, listed.first).map_err(Error::io("read", &path))?;
        match header {
            ParsedHeader::Newer(version) => Err(Error::Newer { path, version }),
            _ => Ok(Walk { file, header, scan }),
        }
    }

    /// Whether its segment is known to belong to `log`.
    fn is_of(&self, log: Id) -> bool {
        self.scan.log().is_some_and(|ours| ours.same_log(log))
    }

    /// Walks to the end. Returns the number of torn bytes there.
    fn finish(
        &mut self,
        log_dir: &LogDir,
        listed: SegmentFile,
        recovered: &mut RecoveryReport,
    ) -> Result<u64, Error> {
        let path = log_dir::segment_path(log_dir.path(), listed.first);
        self.count(recovered).map_err(Error::io("read", &path))
    }

    fn count(&mut self, recovered: &mut RecoveryReport) -> io::Result<u64> {
        loop {
            match self.scan.next(&self.file)? {
                Step::Record { body, missing, .. } => {
                    recovered.records += u64::from(!body.is_empty());
                    recovered.bad_records = recovered.bad_records.saturating_add(missing);
                }
                Step::Bad { records } => {
                    recovered.bad_records = recovered.bad_records.saturating_add(records);
                }
                Step::End { torn } => return Ok(torn),
            }
        }
    }
}

/// A writer that died between a new segment's header and its name left it without one.
fn adopt(log_dir: &LogDir) -> Result<(), Error> {
    let next = log_dir.path().join(NEXT);
    let Ok(file) = File::open(&next) else { return Ok(()) };
    let mut bytes = [0; HEADER];
    let read = std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, 0);
    let path = match Header::parse(&bytes) {
        ParsedHeader::Sound(header) if read.is_ok() => log_dir::segment_path(log_dir.path(), header.first),
        ParsedHeader::Newer(version) => return Err(Error::Newer { path: next, version }),
        _ => return log_dir::remove(&next),
    };
    if path.exists() {
        return log_dir::remove(&next);
    }
    std::fs::rename(&next, &path).map_err(Error::io("name", &path))
}

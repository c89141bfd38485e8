//! What a writer finds when it opens a log: whose it is, where it ends, and which numbers are free.
//! Only the last segment is walked; of the others only the headers are looked at.

use std::fs::File;
use std::io;

use super::folder::{self, Folder, Listed, NEXT};
use super::record::{self, HEAD, HEADER, Header, Opening};
use super::scan::{Scan, Step};
use super::{Error, Id, RecordId, calls};
use crate::config;

/// What opening the log found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Segments, before a new one was made.
    pub segments: u64,
    /// Records in the last segment, where the walk was.
    pub records: u64,
    /// Bytes behind the last record, now zeroed.
    pub torn_bytes: u64,
    /// Records that had rotted in the last segment.
    pub bad_records: u64,
    /// Segments that held nothing at all and were deleted.
    pub empty_segments: u64,
}

/// Where the log ends.
pub(super) struct End {
    pub(super) first: u64,
    pub(super) size: u64,
    pub(super) position: u64,
    pub(super) torn: u64,
}

impl End {
    /// Whether the segment has room for a record of the largest kind, and the size that is configured.
    pub(super) fn takes(&self, config: &config::Log) -> bool {
        let need = record::footprint(config.document).saturating_add(HEAD) as u64;
        self.size == config.segment && self.size.saturating_sub(self.position) >= need
    }
}

/// What is in the folder.
pub(super) struct Found {
    /// The name of the run that begins now.
    pub(super) id: Id,
    /// Its first number.
    pub(super) seq: u64,
    /// The last segment, if it can be gone on with.
    pub(super) end: Option<End>,
}

impl Found {
    /// Looks into the folder. Which log is the writer's own, among several, the cursors say.
    pub(super) fn look(
        folder: &Folder,
        cursors: &[(String, Option<RecordId>)],
    ) -> Result<(Found, Recovered), Error> {
        adopt(folder)?;
        let mut recovered = Recovered::default();
        let segments = folder::list(folder.dir())?;
        recovered.segments = segments.len() as u64;
        let mut all = Vec::with_capacity(segments.len());
        for listed in segments {
            all.push((listed, Walk::begin(folder, listed)?));
        }
        let random = Id(calls::random().map_err(Error::io("make an id for", folder.dir()))?);
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
            let torn = walk.on(folder, listed, &mut recovered)?;
            // Someone may have renamed the file: what is in it is not written over.
            least = least.max(listed.first + u64::from(walk.scan.offset() > HEADER as u64));
            let Some(log) = walk.scan.log() else {
                folder::remove(&folder::path(folder.dir(), listed.first))?;
                recovered.empty_segments += 1;
                least = least.max(listed.first + 1);
                continue;
            };
            if shipped.is_some_and(|shipped| !shipped.log.same_log(log)) {
                (recovered.records, recovered.bad_records, last) = (0, 0, false);
                continue; // copied in
            }
            recovered.torn_bytes = torn;
            least = least.max(walk.scan.floor()).max(strayed(folder, all, log)?);
            // A header without a record has begun its run too: what comes under another id is of a later one.
            let begun = least.saturating_sub(u64::from(walk.scan.offset() > HEADER as u64));
            let seq = record::next_run(begun);
            let seq = seq.ok_or_else(|| Error::Exhausted { dir: folder.dir().into() })?;
            let whole = last && matches!(walk.opening, Opening::Sound(header) if header.size == listed.size);
            let end = End { first: listed.first, size: listed.size, position: walk.scan.offset(), torn };
            return Ok((Found { id: log.next(random), seq, end: whole.then_some(end) }, recovered));
        }
        let (id, seq) = gone.unwrap_or((random, 0));
        Ok((Found { id, seq, end: None }, recovered))
    }
}

/// The number behind all records in segments of this log that have another's name: there the
/// newest may be.
fn strayed(folder: &Folder, segments: Vec<(Listed, Walk)>, log: Id) -> Result<u64, Error> {
    let mut least = 0;
    for (listed, mut walk) in segments {
        if matches!(walk.opening, Opening::Sound(header) if header.first != listed.first && header.log.same_log(log))
        {
            walk.on(folder, listed, &mut Recovered::default())?;
            least = least.max(walk.scan.floor());
        }
    }
    Ok(least)
}

/// A walk through one segment.
struct Walk {
    file: File,
    opening: Opening,
    scan: Scan,
}

impl Walk {
    fn begin(folder: &Folder, listed: Listed) -> Result<Walk, Error> {
        let path = folder::path(folder.dir(), listed.first);
        let file = calls::open(&path).map_err(Error::io("open", &path))?;
        let mut scan = Scan::default();
        let opening = scan.begin(&file, listed.first).map_err(Error::io("read", &path))?;
        match opening {
            Opening::Newer(version) => Err(Error::Newer { path, version }),
            _ => Ok(Walk { file, opening, scan }),
        }
    }

    /// Whether it is known to be of this log.
    fn is_of(&self, log: Id) -> bool {
        self.scan.log().is_some_and(|ours| ours.same_log(log))
    }

    /// Walks to the end. Returns how many bytes are torn there.
    fn on(&mut self, folder: &Folder, listed: Listed, recovered: &mut Recovered) -> Result<u64, Error> {
        let path = folder::path(folder.dir(), listed.first);
        self.step(recovered).map_err(Error::io("read", &path))
    }

    fn step(&mut self, recovered: &mut Recovered) -> io::Result<u64> {
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
fn adopt(folder: &Folder) -> Result<(), Error> {
    let next = folder.dir().join(NEXT);
    let Ok(file) = File::open(&next) else { return Ok(()) };
    let mut bytes = [0; HEADER];
    let read = std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, 0);
    let path = match Header::parse(&bytes) {
        Opening::Sound(header) if read.is_ok() => folder::path(folder.dir(), header.first),
        Opening::Newer(version) => return Err(Error::Newer { path: next, version }),
        _ => return folder::remove(&next),
    };
    if path.exists() {
        return folder::remove(&next);
    }
    std::fs::rename(&next, &path).map_err(Error::io("name", &path))
}

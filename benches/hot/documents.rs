//! A document's way: into the log, and out of it into a bulk request.

use std::fs::File;
use std::hint::black_box;
use std::io::Write as _;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use onset::clock::Wall;
use onset::config::Config;
use onset::log::Writer;
use onset::ship::bench::bulk;
use onset::sys;
use onset::tracer::TRACERS;

use crate::Scratch;
use crate::table::{Budget, head, line, ns, ns_of, waited};

/// As long as a document of an event usually is.
pub const DOCUMENT: usize = 4096;

/// So many are appended in a round, and so many rounds there are: it all fits one segment.
const CALLS: u32 = 100;
const ROUNDS: usize = 51;

pub fn lines(scratch: &Scratch) {
    head("a document of 4 KiB");
    let document = document(1);
    let mut writer = writer(&scratch.0.join("log"), "64MiB");
    let append = ns_of(ROUNDS, CALLS, || append(&mut writer, &document));
    drop(writer);
    let mut map = mapping(&scratch.0.join("mapped"));
    let mut at = 0;
    let copy = ns_of(ROUNDS, CALLS, || {
        map[at..at + DOCUMENT].copy_from_slice(black_box(&document));
        at += DOCUMENT;
    });
    let mut file = File::create(scratch.0.join("plain")).expect("a file");
    let write = ns_of(ROUNDS, CALLS, || file.write_all(&document).expect("a write"));
    let synced = waited(ROUNDS, || {
        file.write_all(&document).expect("a write");
        file.sync_data().expect("a sync");
    });
    line("into the log", append, None, Budget::Us(10.0));
    line("the same", append, Some(("memcpy to such a mapping", copy)), Budget::Ratio(2.0));
    line("the same", append, Some(("write(2)", write)), Budget::None);
    line("the same", append, Some(("write(2) + fdatasync (wall)", synced)), Budget::None);
    batches();
}

/// Appends one.
pub fn append(writer: &mut Writer, document: &[u8]) {
    writer
        .append(|_, to| {
            to.get_mut(..document.len())?.copy_from_slice(document);
            Some(document.len())
        })
        .expect("an append");
}

/// A log in this folder.
pub fn writer(dir: &Path, segment: &str) -> Writer {
    let text = format!("[log]\ndir = \"{}\"\nsegment = \"{segment}\"\n", dir.display());
    let config = Config::parse(&text, TRACERS).expect("a config");
    Writer::open(&config.log).expect("a log").0
}

/// What the log writes to, without the log: a file that is set aside whole and mapped.
fn mapping(path: &Path) -> memmap2::MmapMut {
    let mut open = File::options();
    let file = open.read(true).write(true).create_new(true).open(path).expect("a file");
    let bytes = ROUNDS * CALLS as usize * DOCUMENT;
    sys::fallocate(&file, bytes as u64).expect("room on the disk");
    // SAFETY: the file is in a folder of ours, and nobody shortens it.
    unsafe { memmap2::MmapMut::map_mut(&file) }.expect("a mapping")
}

/// One like those of events: an envelope and the nodes of a flame graph.
pub fn document(number: usize) -> Vec<u8> {
    let mut text = format!(
        "{{\"hostname\":\"node-7\",\"region\":\"lab\",\"time\":\"2026-11-23T16:46:53.007Z\",\"container_id\":\"{number:064x}\",\"tracer_name\":\"cpuidle\",\"tracer_data\":{{\"trigger\":\"surge\",\"flamedata\":["
    );
    for level in 0.. {
        let label = (number * 31 + level * 7) % 977;
        let node = format!(
            "{{\"level\":{level},\"value\":{number},\"self\":{level},\"label\":\"function_{label}\"}}"
        );
        if text.len() + node.len() + 64 > DOCUMENT {
            break;
        }
        text = text + if level == 0 { "" } else { "," } + &node;
    }
    text += "],\"filling\":\"";
    text += &"x".repeat(DOCUMENT - text.len() - 4);
    text += "\"}}\n";
    text.into_bytes()
}

/// A megabyte of them as a bulk request.
pub fn documents() -> Vec<Vec<u8>> {
    (0..250).map(document).collect()
}

fn batches() {
    let documents = documents();
    let bytes = documents.iter().map(Vec::len).sum();
    let count = documents.len() as f64;
    let built = ns(|| {
        black_box(bulk(1 << 20, &documents, Wall(1_795_452_413_007)));
    }) / count;
    let copied = ns(|| {
        let mut all: Vec<u8> = Vec::with_capacity(bytes);
        documents.iter().for_each(|document| all.extend_from_slice(document));
        black_box(all);
    }) / count;
    let all = documents.concat();
    let packed = ns(|| {
        let mut packer = GzEncoder::new(Vec::with_capacity(all.len() / 4), Compression::fast());
        packer.write_all(&all).expect("memory");
        black_box(packer.finish().expect("memory"));
    }) / count;
    line("into a bulk request of 1 MiB", built, Some(("memcpy to a new buffer", copied)), Budget::None);
    line("the same", built, Some(("gzip of it", packed)), Budget::None);
}

//! Each parser of foreign bytes over a real file of its corpus, the largest; beside it the parser of
//! the procfs crate over the same file, where it has one.

use std::fs;
use std::hint::black_box;
use std::path::Path;

use onset::fuzz::{TARGETS, Target};
use procfs_core::process::{MemoryMaps, MountInfos, Stat};
use procfs_core::{
    DiskStats, ExplicitSystemInfo, FromBufRead, FromBufReadSI, FromRead, IoPressure, KernelStats,
    LoadAverage, Meminfo, ProcessCGroups,
};

use crate::table::{head, ns, speed};
use crate::tree::corpus;

/// Not the parser of one file alone: they write files, feed a connection byte by byte, play whole
/// stories, or hold what was read against the bytes at length.
const OTHERS: [&str; 25] = [
    "agent_reply",
    "bpf_io_record",
    "bpf_io_row",
    "bpf_kallsyms",
    "bpf_task_summary",
    "bpf_stack",
    "bpf_stuck",
    "bpf_sums",
    "bulk_request",
    "command_line",
    "config_words",
    "document",
    "elf_file",
    "es_answer",
    "folder_records",
    "http_request",
    "log_cursor",
    "log_follow",
    "log_segment",
    "mountpoints",
    "oom_kill",
    "rejects",
    "small_files",
    "stuck_task",
    "tracer_events",
];

/// Reads a text.
type Beside = fn(&[u8]) -> bool;

const SYSTEM: ExplicitSystemInfo =
    ExplicitSystemInfo { boot_time_secs: 0, ticks_per_second: 100, page_size: 4096, is_little_endian: true };

fn read<T: FromRead>(text: &[u8]) -> bool {
    black_box(<T as FromRead>::from_read(text)).is_ok()
}

fn lines_of<T: FromBufRead>(text: &[u8]) -> bool {
    black_box(T::from_buf_read(text)).is_ok()
}

fn stat(text: &[u8]) -> bool {
    black_box(KernelStats::from_buf_read(text, &SYSTEM)).is_ok()
}

/// What the procfs crate reads too: the parser here, the file, and its own parser.
const BESIDE: [(&str, &str, Beside); 8] = [
    ("proc_stat", "6.18", stat),
    ("meminfo", "6.18", lines_of::<Meminfo>),
    ("loadavg", "6.18", read::<LoadAverage>),
    ("diskstats", "6.18", lines_of::<DiskStats>),
    ("pressure", "io-6.18", lines_of::<IoPressure>),
    ("task_stat", "cat-6.18", read::<Stat>),
    ("task_cgroup", "hybrid", lines_of::<ProcessCGroups>),
    ("mountinfo", "hybrid-6.18", lines_of::<MountInfos>),
];

/// The parser of this name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().find(|(known, _)| *known == name).map(|(_, target)| *target)
}

/// The largest file of its corpus.
pub fn largest(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let files = fs::read_dir(&folder).expect("a corpus").flatten();
    let sized = files.filter_map(|file| Some((file.metadata().ok()?.len(), file.path())));
    let (_, path) = sized.max().expect("a file");
    fs::read(path).expect("a file")
}

pub fn lines() {
    head("parsers; beside them the procfs crate on the same file");
    for (name, file, other) in BESIDE {
        let (text, parse) = (corpus(&format!("{name}/{file}")), target(name).expect("a parser"));
        let ours = ns(|| parse(black_box(&text)));
        let beside = other(&text).then(|| ("procfs", ns(|| _ = other(black_box(&text)))));
        if beside.is_none() {
            println!("{name}: the procfs crate does not take this file");
        }
        speed(&what(name, &text), text.len(), ours, beside);
    }
    let maps = corpus("maps/own");
    let parse = target("maps").expect("a parser");
    let other = ns(|| _ = lines_of::<MemoryMaps>(black_box(&maps)));
    let beside = lines_of::<MemoryMaps>(&maps).then_some(("procfs", other));
    speed(&what("maps", &maps), maps.len(), ns(|| parse(black_box(&maps))), beside);
    let told = |name: &&str| *name == "maps" || BESIDE.iter().any(|(known, ..)| known == name);
    for (name, parse) in TARGETS {
        if !told(name) && !OTHERS.contains(name) {
            let text = largest(name);
            speed(&what(name, &text), text.len(), ns(|| parse(black_box(&text))), None);
        }
    }
}

fn what(name: &str, text: &[u8]) -> String {
    format!("{name}, {} bytes", text.len())
}

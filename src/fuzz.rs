//! Every parser of foreign bytes as a fuzz target, by name: `fuzz/run` reads this table. A target's
//! corpus is `fuzz/corpus/NAME`: its files are the unit tests' fixtures, and the cases that broke it once.

use crate::{config, control, host, http, log, ship, symbol, tracer};

/// Takes any bytes, and must come back.
pub type Target = fn(&[u8]);

/// All of them.
pub const TARGETS: &[(&str, Target)] = &[
    ("cgroup_path", host::fuzz::cgroup_path),
    ("bulk_reply", ship::fuzz::reply),
    ("config", config::fuzz),
    ("control_ask", control::fuzz),
    ("cpu_max", host::fuzz::cpu_max),
    ("cpu_stat", host::fuzz::cpu_stat),
    ("cpuacct_stat", host::fuzz::cpuacct_stat),
    ("cpuset", host::fuzz::cpuset),
    ("diskstats", host::fuzz::diskstats),
    ("docker_config", host::fuzz::docker_config),
    ("elf_note", symbol::fuzz::elf_note),
    ("elf_file", symbol::fuzz::elf_file),
    ("http_request", http::fuzz::request),
    ("kallsyms", symbol::fuzz::kallsyms),
    ("kubelet_pods", host::fuzz::kubelet_pods),
    ("label", symbol::fuzz::label),
    ("loadavg", host::fuzz::loadavg),
    ("log_segment", log::fuzz::fuzz_segment),
    ("maps", symbol::fuzz::maps),
    ("meminfo", host::fuzz::meminfo),
    ("memory_stat", host::fuzz::memory_stat),
    ("mountinfo", host::fuzz::mountinfo),
    ("oci_spec", host::fuzz::oci_spec),
    ("perf_map", symbol::fuzz::perf_map),
    ("podman_containers", host::fuzz::podman_containers),
    ("pressure", host::fuzz::pressure),
    ("proc_stat", host::fuzz::proc_stat),
    ("runc_state", host::fuzz::runc_state),
    ("task_cgroup", host::fuzz::task_cgroup),
    ("task_stat", host::fuzz::task_stat),
    ("tracer_events", tracer::fuzz::events),
];

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// So many places of a file are cut or flipped: all would take longer than the rest of the tests.
    const PLACES: usize = 64;

    #[test]
    fn every_target_comes_back_from_its_corpus_whole_cut_and_flipped() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        for (name, target) in TARGETS {
            let files =
                std::fs::read_dir(corpus.join(name)).unwrap_or_else(|_| panic!("{name} has no corpus"));
            let mut seen = 0;
            for file in files {
                let data = std::fs::read(file.expect("an entry").path()).expect("a file");
                target(&data);
                let step = (data.len() / PLACES).max(1);
                for cut in (0..data.len()).step_by(step) {
                    target(&data[..cut]);
                }
                let mut flipped = data;
                for at in (0..flipped.len()).step_by(step) {
                    flipped[at] ^= 0x15;
                    target(&flipped);
                    flipped[at] ^= 0x15;
                }
                seen += 1;
            }
            assert!(seen > 0, "{name} has no corpus");
        }
    }
}

//! Every parser of foreign bytes as a fuzz target, by name: `fuzz/run` reads this table. A target's
//! corpus is `fuzz/corpus/NAME`: its files are the unit tests' fixtures, and the cases that broke it once.

pub mod heap;
#[cfg(test)]
pub(crate) mod record;

use crate::{bpf, capture, cli, config, control, host, http, log, ship, symbol, tracer};

/// Takes any bytes, and must come back.
pub type Target = fn(&[u8]);

/// All of them.
pub const TARGETS: &[(&str, Target)] = &[
    ("agent_reply", cli::fuzz::agent_reply),
    ("bpf_cgroup", bpf::fuzz::cgroup),
    ("bpf_io_record", bpf::fuzz::io_record),
    ("bpf_io_row", bpf::fuzz::io_row),
    ("bpf_kallsyms", bpf::fuzz::kallsyms),
    ("bpf_stack", bpf::fuzz::stack),
    ("bpf_stuck", bpf::fuzz::stuck),
    ("bpf_sums", bpf::fuzz::sums),
    ("bpf_task_summary", bpf::fuzz::task_summary),
    ("bulk_reply", ship::fuzz::reply),
    ("bulk_request", ship::fuzz::bulk_request),
    ("cgroup_claim", host::fuzz::cgroup_claim),
    ("cgroup_path", host::fuzz::cgroup_path),
    ("command_line", cli::fuzz::command_line),
    ("config", config::fuzz::file),
    ("config_words", config::fuzz::words),
    ("control_ask", control::fuzz),
    ("cpu_max", host::fuzz::cpu_max),
    ("cpu_stat", host::fuzz::cpu_stat),
    ("cpuacct_stat", host::fuzz::cpuacct_stat),
    ("cpuset", host::fuzz::cpuset),
    ("crun_status", host::fuzz::crun_status),
    ("diskstats", host::fuzz::diskstats),
    ("docker_config", host::fuzz::docker_config),
    ("document", cli::fuzz::document),
    ("elf_file", symbol::fuzz::elf_file),
    ("elf_note", symbol::fuzz::elf_note),
    ("es_answer", cli::fuzz::es_answer),
    ("folder_records", host::fuzz::folder_records),
    ("http_request", http::fuzz::request),
    ("kallsyms", symbol::fuzz::kallsyms),
    ("kubelet_pods", host::fuzz::kubelet_pods),
    ("label", symbol::fuzz::label),
    ("loadavg", host::fuzz::loadavg),
    ("log_cursor", log::fuzz::cursor),
    ("log_follow", log::fuzz::follow),
    ("log_segment", log::fuzz::segment),
    ("maps", symbol::fuzz::maps),
    ("meminfo", host::fuzz::meminfo),
    ("memory_stat", host::fuzz::memory_stat),
    ("mountinfo", host::fuzz::mountinfo),
    ("mountpoints", capture::fuzz::mountinfo),
    ("oci_spec", host::fuzz::oci_spec),
    ("oom_kill", tracer::fuzz::oom_kill),
    ("perf_map", symbol::fuzz::perf_map),
    ("podman_containers", host::fuzz::podman_containers),
    ("pressure", host::fuzz::pressure),
    ("proc_stat", host::fuzz::proc_stat),
    ("rejects", ship::fuzz::rejects),
    ("runc_state", host::fuzz::runc_state),
    ("small_files", small_files),
    ("stuck_task", stuck_task),
    ("task_cgroup", host::fuzz::task_cgroup),
    ("task_stat", host::fuzz::task_stat),
    ("tracer_events", tracer::fuzz::events),
];

/// Files of a line or a few: lists of CPUs, the kernel's release, statm, groups, secrets; and names in the log.
fn small_files(data: &[u8]) {
    log::fuzz::names(data);
    capture::fuzz::lines(data);
    control::fuzz_groups(data);
    ship::fuzz::secret(data);
}

/// What is read of a task that hangs, without BPF: stat, cgroup, status and stack below /proc.
fn stuck_task(data: &[u8]) {
    capture::fuzz::task_stat(data);
    capture::fuzz::task_cgroup(data);
    capture::fuzz::task_status(data);
    capture::fuzz::task_stack(data);
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// So many places of a file are cut or flipped: all would take longer than the rest of the tests.
    const PLACES: usize = 64;

    #[test]
    fn every_corpus_has_a_target_and_the_table_is_in_order() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        let folders = std::fs::read_dir(corpus).expect("the corpora");
        let mut names: Vec<String> =
            folders.map(|folder| folder.expect("a folder").file_name().to_string_lossy().into()).collect();
        names.sort();
        assert_eq!(names, TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>());
    }

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

//! onset watches a Linux host cheaply and, at the onset of an anomaly, captures the kernel
//! context that explains it. Start at `tracer` (what is watched) and `agent` (the loop).

pub mod bpf;
pub mod capture;
pub mod clock;
pub mod config;
pub mod evidence;
pub mod host;
pub mod metric;
pub mod page;
pub mod stacks;
pub mod symbol;
pub mod sys;
pub mod tracer;

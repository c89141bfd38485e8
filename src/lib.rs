//! onset watches a Linux host cheaply and, at the onset of an anomaly, captures the kernel
//! context that explains it. Start at `tracer` (what is watched) and `agent` (the loop).

pub mod agent;
pub mod bpf;
pub mod capture;
pub mod capture_data;
pub mod cli;
pub mod clock;
pub mod config;
pub mod confine;
pub mod container_names;
pub mod control;
pub mod fixed_buf;
#[doc(hidden)]
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
pub mod host;
pub mod http;
pub mod knob;
mod layout;
pub mod log;
pub mod metric;
pub mod net;
pub mod output;
pub mod record_id;
pub mod ship;
pub mod stacks;
pub mod symbol;
pub mod sys;
mod takeover;
mod thread_spawner;
pub mod tracer;
mod work_queue;

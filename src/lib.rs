//! onset watches a Linux host cheaply and, at the onset of an anomaly, captures the kernel
//! context that explains it. Start at `tracer` (what is watched) and `agent` (the loop).

pub mod agent;
pub mod bpf;
pub mod capture;
pub mod cli;
pub mod clock;
pub mod config;
pub mod confine;
pub mod control;
pub mod evidence;
#[doc(hidden)]
pub mod fuzz;
pub mod host;
pub mod http;
mod inbox;
pub mod log;
pub mod metric;
pub mod net;
pub mod output;
pub mod page;
pub mod registrar;
pub mod ship;
pub mod stacks;
mod starter;
pub mod symbol;
pub mod sys;
pub mod tracer;

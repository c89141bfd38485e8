//! The real agent on this kernel: real BPF, real cgroups, a real frozen filesystem, a real
//! Prometheus. Needs root. They measure, so they run one after the other:
//! `cargo test --test live -- --test-threads=1`.
#![allow(missing_docs, clippy::unwrap_used, clippy::cast_possible_truncation)]

mod accuracy;
mod cgroup;
mod churn;
mod confined;
mod containers;
mod cpuidle;
mod cpusys;
mod crash;
mod disks;
mod dload;
mod endpoint;
mod faults;
mod files;
mod frozen;
mod host_name;
mod images;
mod iotracing;
mod kubelet;
mod log_fire;
mod many_tasks;
mod memburst;
mod oom;
mod people;
mod readings;
mod reload;
mod rig;
mod waitrate;

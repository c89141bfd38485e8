//! What is deployed: the unit, the DaemonSet, alerts, dashboards, `make install` and `make dist`, each
//! held against the agent as it is. Needs root and Debian's tools; `cargo test --test deploy -- --test-threads=1`.
#![allow(missing_docs, dead_code, clippy::unwrap_used, clippy::cast_possible_truncation)]

#[allow(dead_code)] // it is the live tests' too
#[path = "../live/cgroup.rs"]
mod cgroup;
mod demo;
mod install;
mod kubernetes;
mod linked;
mod prometheus;
#[allow(dead_code)] // it is the live tests' too
#[path = "../live/rig.rs"]
mod rig;
mod unit;

use std::path::{Path, PathBuf};

/// A file of the checkout.
pub fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

pub fn read(path: &str) -> String {
    std::fs::read_to_string(file(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

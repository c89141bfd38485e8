//! Shipping against real servers: OpenSearch 2, nginx with a private CA before it, and one under the
//! test's control for what a real one won't do on demand. `cargo test --test ship -- --test-threads=1`.
#![allow(missing_docs, dead_code, clippy::unwrap_used, clippy::cast_possible_truncation)]

mod catching_up;
#[path = "../live/cgroup.rs"]
mod cgroup;
mod copied;
mod fake;
mod fixture;
mod hostile;
mod http;
mod nginx;
mod opensearch;
#[allow(dead_code)] // it is the live tests' too
#[path = "../live/rig.rs"]
mod rig;
mod secure;
mod servers;
mod survival;
mod template;
mod tracers;

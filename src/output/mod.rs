//! Outputs: each takes the log's records somewhere else, on a thread and from a cursor of its own. The log is
//! the queue; the loop only wakes them. Whatever an output waits for, the loop waits for nothing.
//! How to add one: docs/how-to-add-an-output.md.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

mod link;
mod position;
mod stats;
mod thread;

pub use link::{Link, Wakeup};
pub use position::Position;
pub use stats::{OutputState, OutputStats};
pub use thread::{OutputThread, Sink};

use crate::config::Config;
use crate::log::Progress;

/// An output in the table of outputs.
#[derive(Clone, Copy, Debug)]
pub struct OutputSpec {
    /// Its name: its cursor's, and its label in metrics and the status.
    pub name: &'static str,
    /// Creates it, for the log in this directory and with its progress there. It does nothing before it is configured.
    pub start: fn(&Path, Arc<Progress>) -> Box<dyn Output>,
}

/// An output, as the loop holds it. Nothing here blocks but `wait_gone`.
pub trait Output {
    /// Applies the config: starts the thread, reconfigures it, or ends it.
    fn configure(&mut self, config: &Config) -> io::Result<()>;
    /// There are new records in the log.
    fn wake(&self);
    /// Makes it send the remaining records once, and end.
    fn leave(&self);
    /// Waits until it has ended, but not for longer than `patience`.
    fn wait_gone(&mut self, patience: Duration);
    /// Where records go, for a person; empty: it is off.
    fn target(&self) -> &str;
    /// Its counters and state.
    fn stats(&self) -> &OutputStats;
    /// How far it has read the log.
    fn progress(&self) -> &Progress;
}

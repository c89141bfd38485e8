//! The network. `client` asks servers. The rest is what both of our own servers share: a listener, a
//! fixed number of slots for connections, a deadline for each. Memory is set aside at start; a turn
//! does a bounded amount of work, and `pending` says that some is left. A server adds only how a
//! request becomes a reply.

use std::io::{self, Read, Write};
use std::time::Duration;

use mio::event::Source;

use crate::fixed_buf::FixedBuf;

pub mod client;
mod slot;
mod slots;

pub use slots::Slots;

/// A listening socket of either family.
pub trait Listen: Source {
    /// What it accepts.
    type Stream: Stream;
    /// The next connection that waits; `WouldBlock` if none does.
    fn take(&self) -> io::Result<Self::Stream>;
}

/// An accepted connection of either family.
pub trait Stream: Source + Read + Write {
    /// Looks at who calls. Who may not speak gets these last words.
    fn admit(&self) -> Result<(), &'static [u8]>;
    /// Says that nothing more will be sent.
    fn finish(&self);
}

/// How a server treats its connections.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The longest request in bytes.
    pub request: usize,
    /// The longest reply in bytes.
    pub reply: usize,
    /// How long a request may take to arrive, a reply to be taken, and a connection to be idle.
    pub patience: Duration,
    /// What a connection is told for which there is no slot.
    pub full: &'static [u8],
}

/// Names one connection; a later one in the same slot has another name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    place: usize,
    generation: u32,
}

/// What becomes of the bytes that were received so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// They are no whole request yet. Never to be said of as many as a request may have.
    Listen,
    /// The reply is in the buffer; the first `took` bytes are done with.
    Reply {
        /// The length of the request.
        took: usize,
        /// Whether the connection ends with this reply.
        last: bool,
    },
    /// The reply will come by `Slots::reply` within this time, and be the last.
    Later(Duration),
}

/// Turns what a connection sent into a reply.
pub type Speak<'a> = dyn FnMut(Caller, &[u8], &mut FixedBuf) -> Next + 'a;

//! The network: `client` is the HTTP client; the rest is shared by both of the agent's servers: a listener, and a fixed
//! number of slots for connections, each with a deadline. Memory is allocated at start. A turn does a bounded amount of
//! work, and `pending` tells that some is left. A server adds only how a request becomes a reply.

use std::io::{self, Read, Write};
use std::time::Duration;

use mio::event::Source;

use crate::fixed_buf::FixedBuf;

pub mod client;
mod slot;
mod slots;

pub use slots::Slots;

/// A listening socket of either family.
pub trait Listener: Source {
    /// What it accepts.
    type Stream: Stream;
    /// Accepts the next connection; `WouldBlock` if none waits.
    fn accept_stream(&self) -> io::Result<Self::Stream>;
}

/// An accepted connection of either family.
pub trait Stream: Source + Read + Write {
    /// Checks who connected. The error is what a refused peer is sent before its connection is closed.
    fn authorize(&self) -> Result<(), &'static [u8]>;
    /// Shuts the sending side down.
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
    /// What is sent to a connection for which there is no slot.
    pub full: &'static [u8],
}

/// Identifies one connection; a later one in the same slot has another id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionId {
    slot_index: usize,
    generation: u32,
}

/// A server's response to the bytes that were received so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Response {
    /// They are no whole request yet. Never returned once the longest request has been received.
    Incomplete,
    /// The reply is in the buffer; the request was the first `consumed` bytes.
    Reply {
        /// The length of the request.
        consumed: usize,
        /// Whether the connection ends with this reply.
        last: bool,
    },
    /// The reply will come by `Slots::reply` within this time, and be the last.
    Deferred(Duration),
}

/// Turns what a connection sent into a reply.
pub type Respond<'a> = dyn FnMut(ConnectionId, &[u8], &mut FixedBuf) -> Response + 'a;

//! One connection, from its first byte to its end. It is read and written until it would block, as edge-triggered
//! events demand, or until the turn's budget is spent: then it is pending.

use std::io::{self, Read, Write};
use std::time::Duration;

use super::{ConnectionId, Limits, Respond, Response, Stream};
use crate::fixed_buf::{Filled, FixedBuf};

/// The time that a connection has to take the last bytes and close, once it was told to.
const LINGER: Duration = Duration::from_secs(1);

/// Memory that a slot keeps for its next reply; the rest goes back to the system. To get it back costs a page fault
/// for each 4 KiB, which of a page of metrics is a tenth of its cost: so the slot keeps more that a lone scraper always gets.
const REPLY_KEPT: usize = 64 << 10;
const FIRST_REPLY_KEPT: usize = 384 << 10;

/// The work that may still be done in this turn of the loop.
#[derive(Debug)]
pub(super) struct Budget {
    requests: u32,
    bytes: usize,
}

impl Budget {
    /// The work of one turn: a page of metrics takes about a millisecond, so does a mebibyte to a socket.
    pub(super) const TURN: Budget = Budget { requests: 4, bytes: 1 << 20 };

    pub(super) fn is_spent(&self) -> bool {
        self.requests == 0 || self.bytes == 0
    }

    fn spend(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

/// A slot for a connection, with its buffers.
#[derive(Debug)]
pub(super) struct Slot<S> {
    pub(super) connection: Option<Connection<S>>,
    generation: u32,
    /// Memory that it keeps for its next reply.
    kept: usize,
    received: FixedBuf,
    reply: FixedBuf,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Connection<S> {
    stream: S,
    state: ConnectionState,
    /// When it is closed.
    pub(super) deadline: Duration,
    /// Whether the budget ran out before the work did.
    pub(super) pending: bool,
    /// Whether the caller will send nothing more.
    ended: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ConnectionState {
    /// The next request is awaited or being read.
    Reading,
    /// The reply to its request will come from elsewhere.
    Waiting,
    /// The first `sent` bytes of the reply are written.
    Writing { sent: usize, last: bool },
    /// The whole reply is written. What the peer still sends is read and dropped: closing with unread bytes would send a
    /// reset, which can overtake the reply.
    Draining,
}

/// How a connection continues.
enum Step {
    Continue,
    Block,
    Close,
}

impl<S: Stream> Slot<S> {
    /// The slot at this place.
    pub(super) fn new(place: usize, limits: &Limits) -> Slot<S> {
        let kept = if place == 0 { FIRST_REPLY_KEPT } else { REPLY_KEPT };
        let (received, reply) = (FixedBuf::new(limits.request), FixedBuf::new(limits.reply));
        Slot { connection: None, generation: 0, kept, received, reply }
    }

    pub(super) fn begin(&mut self, stream: S, deadline: Duration) {
        self.generation = self.generation.wrapping_add(1);
        self.received.clear();
        self.reply.clear();
        self.connection = Some(Connection {
            stream,
            state: ConnectionState::Reading,
            deadline,
            pending: false,
            ended: false,
        });
    }

    /// Ends the connection, if there is one.
    pub(super) fn end(&mut self, registry: &mio::Registry) {
        if let Some(mut connection) = self.connection.take() {
            // Closing it takes it out of the poll in any case.
            let _ = registry.deregister(&mut connection.stream);
        }
        self.reply.release(self.kept);
    }

    pub(super) fn waits_for(&self, caller: ConnectionId) -> bool {
        self.generation == caller.generation
            && self.connection.as_ref().is_some_and(|connection| connection.state == ConnectionState::Waiting)
    }

    /// Puts the reply that a caller waits for in its buffer.
    pub(super) fn answer(&mut self, deadline: Duration, write: impl FnOnce(&mut FixedBuf)) {
        self.reply.clear();
        write(&mut self.reply);
        if let Some(connection) = &mut self.connection {
            connection.state = ConnectionState::Writing { sent: 0, last: true };
            connection.deadline = deadline;
        }
    }

    /// Reads and writes as far as it can. False: the connection is to be closed.
    pub(super) fn turn(
        &mut self,
        slot_index: usize,
        now: Duration,
        patience: Duration,
        budget: &mut Budget,
        respond: &mut Respond<'_>,
    ) -> bool {
        let caller = ConnectionId { slot_index, generation: self.generation };
        let Slot { connection: Some(connection), received, reply, kept, .. } = self else { return true };
        connection.pending = false;
        loop {
            let turn = match connection.state {
                ConnectionState::Reading => {
                    connection.read_request(caller, now, patience, received, reply, budget, respond)
                }
                ConnectionState::Waiting => connection.check_open(),
                ConnectionState::Writing { sent, last } => {
                    let step = connection.write_reply(sent, last, now, patience, reply, budget);
                    if matches!(step, Step::Continue) {
                        reply.release(*kept);
                    }
                    step
                }
                ConnectionState::Draining => connection.drain(received, budget),
            };
            match turn {
                Step::Continue => {}
                Step::Block => return true,
                Step::Close => return false,
            }
        }
    }
}

impl<S: Stream> Connection<S> {
    fn out_of_budget(&mut self) -> Step {
        self.pending = true;
        Step::Block
    }

    #[allow(clippy::too_many_arguments)] // all that a conversation is about
    fn read_request(
        &mut self,
        caller: ConnectionId,
        now: Duration,
        patience: Duration,
        received: &mut FixedBuf,
        reply: &mut FixedBuf,
        budget: &mut Budget,
        respond: &mut Respond<'_>,
    ) -> Step {
        if !received.is_empty() {
            if budget.requests == 0 {
                return self.out_of_budget();
            }
            reply.clear();
            match respond(caller, received, reply) {
                Response::Incomplete => {}
                Response::Reply { consumed, last } => {
                    budget.requests -= 1;
                    received.consume(consumed);
                    self.state = ConnectionState::Writing { sent: 0, last };
                    self.deadline = now.saturating_add(patience);
                    return Step::Continue;
                }
                Response::Deferred(within) => {
                    budget.requests -= 1;
                    received.clear();
                    self.state = ConnectionState::Waiting;
                    self.deadline = now.saturating_add(within);
                    return Step::Block;
                }
            }
        }
        if self.ended {
            return Step::Close;
        }
        let idle = received.is_empty();
        let turn = self.read(received, budget);
        if idle && !received.is_empty() {
            // The first byte of a request: all of it may take as long as the idling before it.
            self.deadline = now.saturating_add(patience);
        }
        turn
    }

    fn read(&mut self, to: &mut FixedBuf, budget: &mut Budget) -> Step {
        if budget.bytes == 0 {
            return self.out_of_budget();
        }
        let before = to.len();
        match to.read_from(&mut self.stream) {
            Ok(Filled::Some) => {
                budget.spend(to.len().saturating_sub(before));
                Step::Continue
            }
            Ok(Filled::Empty) => Step::Block,
            Ok(Filled::Ended) => {
                self.ended = true;
                Step::Continue
            }
            Err(_) => Step::Close,
        }
    }

    /// Closes a connection whose peer is gone. A peer may stop sending and yet wait for its reply, so the end of its bytes
    /// proves nothing; but a write to a peer that is gone fails, even one of no bytes.
    fn check_open(&mut self) -> Step {
        match self.stream.write(&[]) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Step::Close,
            _ => Step::Block,
        }
    }

    fn write_reply(
        &mut self,
        mut sent: usize,
        last: bool,
        now: Duration,
        patience: Duration,
        reply: &FixedBuf,
        budget: &mut Budget,
    ) -> Step {
        let mut stream = BudgetedStream { stream: &mut self.stream, budget };
        match reply.write_to(&mut sent, &mut stream) {
            Err(_) => Step::Close,
            Ok(false) => {
                self.state = ConnectionState::Writing { sent, last };
                if budget.bytes == 0 { self.out_of_budget() } else { Step::Block }
            }
            Ok(true) => {
                if last {
                    self.stream.finish();
                    self.state = ConnectionState::Draining;
                    self.deadline = now.saturating_add(LINGER);
                } else {
                    self.state = ConnectionState::Reading;
                    self.deadline = now.saturating_add(patience);
                }
                Step::Continue
            }
        }
    }

    fn drain(&mut self, received: &mut FixedBuf, budget: &mut Budget) -> Step {
        if self.ended {
            return Step::Close;
        }
        received.clear();
        self.read(received, budget)
    }
}

/// A stream that blocks when the budget is spent.
struct BudgetedStream<'a, S> {
    stream: &'a mut S,
    budget: &'a mut Budget,
}

impl<S: Write> Write for BudgetedStream<'_, S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.budget.bytes == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let wrote = self.stream.write(bytes.get(..self.budget.bytes).unwrap_or(bytes))?;
        self.budget.spend(wrote);
        Ok(wrote)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Sends `words` to a connection that cannot be served, as far as that needs no waiting, and closes it.
pub(super) fn reject(mut stream: impl Stream, words: &[u8]) {
    // Nothing is lost by a failure here: the caller is sent away in any case.
    let _ = stream.write(words);
    stream.finish();
    let mut chunk = [0; 4096];
    for _ in 0..4 {
        if !matches!(Read::read(&mut stream, &mut chunk), Ok(1..)) {
            return;
        }
    }
}

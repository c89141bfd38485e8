//! One connection, from its first byte to its end. It is always read and written until it would
//! block, as edge-triggered events demand, or is marked to be gone on with.

use std::io::{self, Read, Write};
use std::time::Duration;

use super::{Caller, Limits, Next, Speak, Stream};
use crate::fixed_buf::{Filled, FixedBuf};

/// The time that a connection has to take the last bytes and close, once it was told to.
const LINGER: Duration = Duration::from_secs(1);

/// Memory that a slot keeps for its next reply; the rest goes back to the system. To get it back costs a page fault
/// for each 4 KiB, which of a page of metrics is a tenth of its cost: so the slot keeps more that a lone scraper always gets.
const REPLY_KEPT: usize = 64 << 10;
const FIRST_REPLY_KEPT: usize = 384 << 10;

/// What may still be done before the loop has to look at its other work.
#[derive(Debug)]
pub(super) struct Budget {
    requests: u32,
    bytes: usize,
}

impl Budget {
    /// What one turn may do: a page of metrics takes about a millisecond, so does a mebibyte to a socket.
    pub(super) const TURN: Budget = Budget { requests: 4, bytes: 1 << 20 };

    pub(super) fn is_spent(&self) -> bool {
        self.requests == 0 || self.bytes == 0
    }

    fn spend(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

/// A place for a connection, with its memory.
#[derive(Debug)]
pub(super) struct Slot<S> {
    pub(super) line: Option<Line<S>>,
    generation: u32,
    /// Memory that it keeps for its next reply.
    kept: usize,
    received: FixedBuf,
    reply: FixedBuf,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Line<S> {
    stream: S,
    state: State,
    /// When it is cut.
    pub(super) deadline: Duration,
    /// Whether the budget ran out before the work did.
    pub(super) more: bool,
    /// Whether the caller will send nothing more.
    ended: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A request is to come, or is coming.
    Listening,
    /// Its request is being seen to elsewhere.
    Waiting,
    /// The first `sent` bytes of the reply are written.
    Replying { sent: usize, last: bool },
    /// The last byte is out. What the caller still sends is taken and dropped: to close on unread
    /// bytes would be a reset, which can overtake the reply.
    Leaving,
}

/// Whether a connection lives on after a turn.
enum Turn {
    Again,
    Rest,
    Over,
}

impl<S: Stream> Slot<S> {
    /// The slot at this place.
    pub(super) fn new(place: usize, limits: &Limits) -> Slot<S> {
        let kept = if place == 0 { FIRST_REPLY_KEPT } else { REPLY_KEPT };
        let (received, reply) = (FixedBuf::new(limits.request), FixedBuf::new(limits.reply));
        Slot { line: None, generation: 0, kept, received, reply }
    }

    pub(super) fn begin(&mut self, stream: S, deadline: Duration) {
        self.generation = self.generation.wrapping_add(1);
        self.received.clear();
        self.reply.clear();
        self.line = Some(Line { stream, state: State::Listening, deadline, more: false, ended: false });
    }

    /// Ends the connection, if there is one.
    pub(super) fn end(&mut self, registry: &mio::Registry) {
        if let Some(mut line) = self.line.take() {
            // Closing it takes it out of the poll in any case.
            let _ = registry.deregister(&mut line.stream);
        }
        self.reply.release(self.kept);
    }

    pub(super) fn waits_for(&self, caller: Caller) -> bool {
        self.generation == caller.generation
            && self.line.as_ref().is_some_and(|line| line.state == State::Waiting)
    }

    /// Puts the reply that a caller waits for in its buffer.
    pub(super) fn answer(&mut self, deadline: Duration, write: impl FnOnce(&mut FixedBuf)) {
        self.reply.clear();
        write(&mut self.reply);
        if let Some(line) = &mut self.line {
            line.state = State::Replying { sent: 0, last: true };
            line.deadline = deadline;
        }
    }

    /// Goes on with the connection as far as it can. False: it is over.
    pub(super) fn turn(
        &mut self,
        place: usize,
        now: Duration,
        patience: Duration,
        budget: &mut Budget,
        speak: &mut Speak<'_>,
    ) -> bool {
        let caller = Caller { place, generation: self.generation };
        let Slot { line: Some(line), received, reply, kept, .. } = self else { return true };
        line.more = false;
        loop {
            let turn = match line.state {
                State::Listening => line.listen(caller, now, patience, received, reply, budget, speak),
                State::Waiting => line.wait(),
                State::Replying { sent, last } => {
                    let turn = line.send(sent, last, now, patience, reply, budget);
                    if matches!(turn, Turn::Again) {
                        reply.release(*kept);
                    }
                    turn
                }
                State::Leaving => line.leave(received, budget),
            };
            match turn {
                Turn::Again => {}
                Turn::Rest => return true,
                Turn::Over => return false,
            }
        }
    }
}

impl<S: Stream> Line<S> {
    fn tired(&mut self) -> Turn {
        self.more = true;
        Turn::Rest
    }

    #[allow(clippy::too_many_arguments)] // all that a conversation is about
    fn listen(
        &mut self,
        caller: Caller,
        now: Duration,
        patience: Duration,
        received: &mut FixedBuf,
        reply: &mut FixedBuf,
        budget: &mut Budget,
        speak: &mut Speak<'_>,
    ) -> Turn {
        if !received.is_empty() {
            if budget.requests == 0 {
                return self.tired();
            }
            reply.clear();
            match speak(caller, received, reply) {
                Next::Listen => {}
                Next::Reply { took, last } => {
                    budget.requests -= 1;
                    received.consume(took);
                    self.state = State::Replying { sent: 0, last };
                    self.deadline = now.saturating_add(patience);
                    return Turn::Again;
                }
                Next::Later(within) => {
                    budget.requests -= 1;
                    received.clear();
                    self.state = State::Waiting;
                    self.deadline = now.saturating_add(within);
                    return Turn::Rest;
                }
            }
        }
        if self.ended {
            return Turn::Over;
        }
        let idle = received.is_empty();
        let turn = self.read(received, budget);
        if idle && !received.is_empty() {
            // The first byte of a request: all of it may take as long as the idling before it.
            self.deadline = now.saturating_add(patience);
        }
        turn
    }

    fn read(&mut self, to: &mut FixedBuf, budget: &mut Budget) -> Turn {
        if budget.bytes == 0 {
            return self.tired();
        }
        let before = to.len();
        match to.read_from(&mut self.stream) {
            Ok(Filled::Some) => {
                budget.spend(to.len().saturating_sub(before));
                Turn::Again
            }
            Ok(Filled::Empty) => Turn::Rest,
            Ok(Filled::Ended) => {
                self.ended = true;
                Turn::Again
            }
            Err(_) => Turn::Over,
        }
    }

    /// A caller may send no more and yet wait for its reply, so an end of its bytes says nothing.
    /// But no byte at all can be written to one that is gone: the kernel says so even of none.
    fn wait(&mut self) -> Turn {
        match self.stream.write(&[]) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Turn::Over,
            _ => Turn::Rest,
        }
    }

    fn send(
        &mut self,
        mut sent: usize,
        last: bool,
        now: Duration,
        patience: Duration,
        reply: &FixedBuf,
        budget: &mut Budget,
    ) -> Turn {
        let mut stream = Metered { stream: &mut self.stream, budget };
        match reply.write_to(&mut sent, &mut stream) {
            Err(_) => Turn::Over,
            Ok(false) => {
                self.state = State::Replying { sent, last };
                if budget.bytes == 0 { self.tired() } else { Turn::Rest }
            }
            Ok(true) => {
                if last {
                    self.stream.finish();
                    self.state = State::Leaving;
                    self.deadline = now.saturating_add(LINGER);
                } else {
                    self.state = State::Listening;
                    self.deadline = now.saturating_add(patience);
                }
                Turn::Again
            }
        }
    }

    fn leave(&mut self, received: &mut FixedBuf, budget: &mut Budget) -> Turn {
        if self.ended {
            return Turn::Over;
        }
        received.clear();
        self.read(received, budget)
    }
}

/// A stream that blocks when the budget is spent.
struct Metered<'a, S> {
    stream: &'a mut S,
    budget: &'a mut Budget,
}

impl<S: Write> Write for Metered<'_, S> {
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

/// Tells one that cannot stay why, as far as that goes without waiting, and lets it go.
pub(super) fn turn_away(mut stream: impl Stream, words: &[u8]) {
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

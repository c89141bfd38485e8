use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream as Client};
use std::rc::Rc;

use mio::event::Source;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Poll};

use super::super::{Response, Stream};
use super::*;

const PATIENCE: Duration = Duration::from_secs(5);

/// A connection that counts what is written to it.
struct Counted {
    stream: TcpStream,
    wrote: Rc<Cell<usize>>,
}

impl Read for Counted {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        self.stream.read(to)
    }
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let wrote = self.stream.write(bytes)?;
        self.wrote.set(self.wrote.get() + wrote);
        Ok(wrote)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

impl Stream for Counted {
    fn authorize(&self) -> Result<(), &'static [u8]> {
        self.stream.authorize()
    }
    fn finish(&self) {
        self.stream.finish();
    }
}

macro_rules! source {
    ($kind:ident, $inner:ident) => {
        impl Source for $kind {
            fn register(&mut self, to: &Registry, token: Token, what: Interest) -> io::Result<()> {
                self.$inner.register(to, token, what)
            }
            fn reregister(&mut self, to: &Registry, token: Token, what: Interest) -> io::Result<()> {
                self.$inner.reregister(to, token, what)
            }
            fn deregister(&mut self, from: &Registry) -> io::Result<()> {
                self.$inner.deregister(from)
            }
        }
    };
}

source!(Counted, stream);
source!(Flaky, listener);

/// A listener that cannot accept for a while, as when there are no more files.
struct Flaky {
    listener: TcpListener,
    failures: Cell<u32>,
    wrote: Rc<Cell<usize>>,
}

impl Listener for Flaky {
    type Stream = Counted;

    fn accept_stream(&self) -> io::Result<Counted> {
        match self.failures.get() {
            0 => {
                let stream = self.listener.accept_stream()?;
                Ok(Counted { stream, wrote: self.wrote.clone() })
            }
            left => {
                self.failures.set(left - 1);
                Err(io::Error::from_raw_os_error(libc::EMFILE))
            }
        }
    }
}

struct World {
    poll: Poll,
    slots: Slots<Flaky>,
    /// Bytes written in each turn that wrote any.
    turns: Vec<usize>,
}

impl World {
    fn new(failures: u32) -> World {
        let poll = Poll::new().expect("epoll");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a free port");
        let flaky = Flaky { listener, failures: Cell::new(failures), wrote: Rc::default() };
        let limits = Limits { request: 16, reply: 4 << 20, patience: PATIENCE, full: b"full" };
        let slots = Slots::new(flaky, poll.registry(), 10..12, limits).expect("a listener");
        World { poll, slots, turns: Vec::new() }
    }

    fn connect(&self) -> Client {
        Client::connect(self.slots.listener().listener.local_addr().expect("bound")).expect("it listens")
    }

    /// Events until there are none; every byte is a request, and this is its reply.
    fn settle(&mut self, now: Duration, reply: &[u8]) {
        let mut events = Events::with_capacity(8);
        let mut respond = |_: ConnectionId, _: &[u8], buf: &mut FixedBuf| {
            buf.push(reply).expect("it fits");
            Response::Reply { consumed: 1, last: false }
        };
        loop {
            let pending = self.slots.pending();
            let wait = if pending { Duration::ZERO } else { Duration::from_millis(10) };
            self.poll.poll(&mut events, Some(wait)).expect("epoll");
            if pending {
                self.slots.resume(now, &mut respond);
            }
            for event in &events {
                self.slots.ready(event.token(), now, &mut respond);
            }
            let wrote = self.slots.listener().wrote.take();
            self.turns.extend((wrote > 0).then_some(wrote));
            if events.is_empty() && !pending {
                return;
            }
        }
    }
}

#[test]
fn a_failed_accept_is_retried_without_an_event() {
    let mut world = World::new(2);
    let mut client = world.connect();
    client.write_all(b"x").expect("room");
    let now = Duration::from_secs(100);
    world.settle(now, b"well");
    for second in 1..=2 {
        assert_eq!(world.slots.deadline(), Some(now + RETRY * second));
        assert!(!world.slots.pending(), "it does not spin meanwhile");
        world.slots.expire(now + RETRY * second);
        world.settle(now + RETRY * second, b"well");
    }
    let mut reply = [0; 4];
    client.read_exact(&mut reply).expect("a reply");
    assert_eq!(&reply, b"well");
}

#[test]
fn a_long_reply_is_written_over_several_turns() {
    let mut world = World::new(0);
    let mut client = world.connect();
    client.write_all(b"x").expect("room");
    let reply = vec![b'r'; 4 << 20];
    let reading = std::thread::spawn(move || {
        let mut all = vec![0; 4 << 20];
        client.read_exact(&mut all).map(|()| all)
    });
    while !reading.is_finished() {
        world.settle(Duration::ZERO, &reply);
    }
    assert_eq!(reading.join().expect("no panic").expect("all of it"), reply);
    let (turns, most) = (world.turns.len(), world.turns.iter().max());
    assert!(turns >= 4 && most <= Some(&(1 << 20)), "{:?}", world.turns);
}

#[test]
fn a_token_of_another_server_is_ignored() {
    let mut world = World::new(0);
    for token in [0, 9, 12, usize::MAX] {
        world.slots.ready(Token(token), Duration::ZERO, &mut |_, _, _| panic!("nobody spoke"));
    }
    assert_eq!(world.slots.deadline(), None);
}

//! Once it listens, the endpoint takes nothing from the heap: connections, requests good and bad,
//! pages, refusals, cuts.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use mio::{Events, Poll};
use onset::fixed_buf::FixedBuf;
use onset::http::{Pages, Server};

use crate::ALLOCATIONS;

const PAGE: usize = 300_000;

struct Fill;

impl Pages for Fill {
    fn page(&mut self, path: &str, to: &mut FixedBuf) -> Option<(u16, &'static str)> {
        for _ in 0..PAGE / 10 {
            to.push(b"0123456789").ok()?;
        }
        (path == "/metrics").then_some((200, "text/plain"))
    }
}

/// Turns of the loop until nothing happens any more.
fn settle(poll: &mut Poll, events: &mut Events, server: &mut Server, now: Duration) {
    loop {
        let pending = server.pending();
        let wait = if pending { Duration::ZERO } else { Duration::from_millis(10) };
        poll.poll(events, Some(wait)).expect("epoll");
        if pending {
            server.resume(now, &mut Fill);
        }
        for event in &*events {
            server.ready(event.token(), now, &mut Fill);
        }
        if events.is_empty() && !pending {
            return;
        }
    }
}

#[test]
fn http_connections_and_pages_do_not_allocate() {
    let mut poll = Poll::new().expect("epoll");
    let mut events = Events::with_capacity(64);
    let any = (Ipv4Addr::LOCALHOST, 0).into();
    let mut server = Server::bind(any, poll.registry(), 0..17, 8 << 20).expect("a free port");
    let address = server.address();
    let mut clients: Vec<TcpStream> = Vec::with_capacity(20);
    let mut chunk = vec![0; 1 << 20];
    let before = ALLOCATIONS.get();
    let mut got = 0;
    for second in 0..4 {
        let now = Duration::from_secs(second * 10);
        for number in 0..20 {
            let mut client = TcpStream::connect(address).expect("it listens");
            client.set_nonblocking(true).expect("a socket");
            let bad: &[u8] = if number % 3 == 0 { b"\0" } else { b"" };
            let request = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n";
            client.write_all(request).and_then(|()| client.write_all(bad)).expect("room");
            clients.push(client);
        }
        settle(&mut poll, &mut events, &mut server, now);
        for client in &mut clients {
            while let Ok(more @ 1..) = client.read(&mut chunk) {
                got += more;
                settle(&mut poll, &mut events, &mut server, now);
            }
        }
        clients.clear();
        assert!(server.deadline().is_some() || got > 0);
        server.expire(now + Duration::from_secs(5));
    }
    assert!(got > 16 * 4 * PAGE, "{got}");
    assert_eq!(ALLOCATIONS.get() - before, 0);
}

use std::collections::HashSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream as Client;

use mio::{Events, Poll};

use super::*;

const TOKENS: Range<usize> = 100..117;
const BODY: usize = 8 << 20;

/// Pages of any length: `/fill/a/100` is a hundred `a`s.
struct TestPages {
    asked: u32,
}

impl Pages for TestPages {
    fn page(&mut self, path: &str, to: &mut FixedBuf) -> Option<(u16, &'static str)> {
        self.asked += 1;
        let mut parts = path.strip_prefix("/fill/")?.split('/');
        let letter = parts.next()?.as_bytes().first()?;
        let count: usize = parts.next()?.parse().ok()?;
        for _ in 0..count {
            to.push(&[*letter]).ok()?;
        }
        Some((200, "text/plain"))
    }
}

/// The agent's loop in small, with a clock that a test moves.
struct TestLoop {
    poll: Poll,
    server: Server,
    pages: TestPages,
    now: Duration,
}

impl TestLoop {
    fn new() -> TestLoop {
        let poll = Poll::new().expect("epoll");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = Server::bind(any, poll.registry(), TOKENS, BODY).expect("a free port");
        TestLoop { poll, server, pages: TestPages { asked: 0 }, now: Duration::from_secs(1000) }
    }

    fn connect(&mut self) -> Client {
        let client = Client::connect(self.server.address()).expect("it listens");
        client.set_nonblocking(true).expect("a socket");
        self.settle();
        client
    }

    fn turn(&mut self, wait: Duration) -> bool {
        let mut events = Events::with_capacity(64);
        let pending = self.server.pending();
        let wait = if pending { Duration::ZERO } else { wait };
        self.poll.poll(&mut events, Some(wait)).expect("epoll");
        if pending {
            self.server.resume(self.now, &mut self.pages);
        }
        for event in &events {
            self.server.ready(event.token(), self.now, &mut self.pages);
        }
        pending || !events.is_empty()
    }

    /// Until nothing more happens by itself: loopback delivers within the call that sends.
    fn settle(&mut self) {
        while self.turn(Duration::from_millis(5)) {}
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        assert!(self.server.deadline().is_some());
        self.server.expire(self.now);
        self.settle();
    }

    fn send(&mut self, client: &mut Client, text: &[u8]) {
        client.write_all(text).expect("room for a request");
        self.settle();
    }

    /// All that comes until nothing more does, and whether the connection ended.
    fn read(&mut self, client: &mut Client) -> (Vec<u8>, bool) {
        let mut all = Vec::new();
        let mut chunk = vec![0; 1 << 20];
        let mut dry = 0;
        loop {
            match client.read(&mut chunk) {
                Ok(0) => return (all, true),
                Ok(got) => {
                    all.extend_from_slice(&chunk[..got]);
                    dry = 0;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    dry = if self.turn(Duration::from_millis(5)) { 0 } else { dry + 1 };
                    if dry == 3 {
                        return (all, false);
                    }
                }
                Err(error) => panic!("{error} after {} bytes", all.len()),
            }
        }
    }

    /// One text in, all answers out: statuses and bodies.
    fn ask(&mut self, text: &str) -> (Vec<(u16, Vec<u8>)>, bool) {
        let mut client = self.connect();
        self.send(&mut client, text.as_bytes());
        let (bytes, ended) = self.read(&mut client);
        (answers(&bytes, text.starts_with("HEAD")), ended)
    }
}

fn answers(mut bytes: &[u8], heads: bool) -> Vec<(u16, Vec<u8>)> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a whole head") + 4;
        let head = str::from_utf8(&bytes[..end]).expect("text");
        let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
        let lengths: Vec<usize> =
            head.lines().filter_map(|line| line.strip_prefix("Content-Length: ")?.parse().ok()).collect();
        assert_eq!(lengths.len(), 1, "one length in {head}");
        let body_end = if heads { end } else { end + lengths[0] };
        all.push((status.expect("a status"), bytes[end..body_end].to_vec()));
        bytes = &bytes[body_end..];
    }
    all
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")
}

#[test]
fn a_page_is_served_and_the_connection_stays_for_the_next() {
    let mut test_loop = TestLoop::new();
    let mut client = test_loop.connect();
    for _ in 0..3 {
        test_loop.send(&mut client, get("/fill/a/5").as_bytes());
        let (bytes, ended) = test_loop.read(&mut client);
        let text = String::from_utf8(bytes).expect("text");
        assert_eq!(text, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\naaaaa");
        assert!(!ended);
    }
}

#[test]
fn every_request_gets_the_right_status_and_body() {
    let mut test_loop = TestLoop::new();
    let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "y".repeat(20_000));
    for (text, status, ends) in [
        ("GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n", 404, false),
        ("GET /fill/a/1?x=y HTTP/1.1\r\nHost: a\r\n\r\n", 200, false),
        ("GET /fill/a/1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 200, true),
        ("GET /fill/a/1 HTTP/1.0\r\n\r\n", 200, true),
        ("GET /fill/a/1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", 200, false),
        ("DELETE /fill/a/1 HTTP/1.1\r\nHost: a\r\n\r\n", 405, false),
        ("POST /fill/a/1 HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nGET ", 405, true),
        ("GET /fill/a/1 HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nGET ", 413, true),
        ("GET /fill/a/1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, true),
        ("\x16\x03\x01", 400, true),
        (&long, 431, true),
    ] {
        let (answers, ended) = test_loop.ask(text);
        let statuses: Vec<u16> = answers.iter().map(|(status, _)| *status).collect();
        assert_eq!((&statuses[..], ended), (&[status][..], ends), "{:.60}", text);
    }
}

#[test]
fn an_http_1_0_client_that_asks_for_keep_alive_gets_it() {
    let mut test_loop = TestLoop::new();
    let mut client = test_loop.connect();
    test_loop.send(&mut client, b"GET /fill/a/1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let (bytes, _) = test_loop.read(&mut client);
    assert!(String::from_utf8_lossy(&bytes).contains("\r\nConnection: keep-alive\r\n"));
}

#[test]
fn a_head_is_answered_with_the_length_but_without_the_body() {
    let mut test_loop = TestLoop::new();
    let (answers, ended) = test_loop.ask("HEAD /fill/a/1000 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((&answers[..], ended), (&[(200, vec![])][..], false));
}

#[test]
fn requests_sent_at_once_are_answered_in_order_over_several_turns() {
    let mut test_loop = TestLoop::new();
    let text: String = (0..100).map(|length| get(&format!("/fill/a/{length}1"))).collect();
    let mut client = test_loop.connect();
    client.write_all(text.as_bytes()).expect("room");
    while test_loop.pages.asked == 0 {
        test_loop.turn(Duration::from_secs(5));
    }
    assert!(test_loop.pages.asked <= 4 && test_loop.server.pending(), "one turn answers a few");
    let (bytes, ended) = test_loop.read(&mut client);
    let lengths: Vec<usize> = answers(&bytes, false).iter().map(|(_, body)| body.len()).collect();
    assert_eq!(lengths, (0..100).map(|length| length * 10 + 1).collect::<Vec<_>>());
    assert!(!ended);
}

#[test]
fn a_client_that_sends_requests_without_end_does_not_starve_another() {
    let mut test_loop = TestLoop::new();
    let (mut greedy, mut modest) = (test_loop.connect(), test_loop.connect());
    greedy.write_all(get("/fill/a/1").repeat(200).as_bytes()).expect("room");
    modest.write_all(get("/fill/b/1").as_bytes()).expect("room");
    let mut turns = 0;
    let mut chunk = [0; 100];
    while modest.read(&mut chunk).is_err() {
        test_loop.turn(Duration::from_secs(5));
        turns += 1;
        assert!(turns < 5, "200 requests are 50 turns");
    }
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let mut test_loop = TestLoop::new();
    let mut client = test_loop.connect();
    let text = get("/fill/a/3");
    for byte in text.as_bytes() {
        assert_eq!(test_loop.pages.asked, 0);
        test_loop.send(&mut client, &[*byte]);
    }
    let (bytes, _) = test_loop.read(&mut client);
    assert_eq!(answers(&bytes, false), [(200, b"aaa".to_vec())]);
}

#[test]
fn a_client_that_shuts_its_sending_side_still_gets_its_reply() {
    let mut test_loop = TestLoop::new();
    let mut client = test_loop.connect();
    client.write_all(get("/fill/a/3").repeat(2).as_bytes()).expect("room");
    client.shutdown(Shutdown::Write).expect("a socket");
    let (bytes, ended) = test_loop.read(&mut client);
    assert_eq!((answers(&bytes, false).len(), ended), (2, true));
    assert_eq!(test_loop.server.deadline(), None, "nobody is left");
}

#[test]
fn an_idle_client_is_cut_after_five_seconds_and_no_sooner() {
    let mut test_loop = TestLoop::new();
    let mut client = test_loop.connect();
    test_loop.pass(Duration::from_millis(4999));
    test_loop.send(&mut client, get("/fill/a/1").as_bytes());
    assert!(!test_loop.read(&mut client).1);
    assert_eq!(test_loop.server.deadline(), Some(test_loop.now + PATIENCE), "its time begins anew");
    test_loop.pass(PATIENCE);
    assert_eq!(test_loop.read(&mut client), (vec![], true));
    assert_eq!(test_loop.server.deadline(), None);
}

#[test]
fn a_slowly_sent_request_is_cut_after_five_seconds() {
    let mut test_loop = TestLoop::new();
    let mut client = test_loop.connect();
    for byte in b"GET /" {
        test_loop.send(&mut client, &[*byte]);
        test_loop.pass(Duration::from_millis(999));
    }
    assert!(!test_loop.read(&mut client).1, "4995 ms have passed");
    test_loop.pass(Duration::from_millis(5));
    assert_eq!(test_loop.read(&mut client), (vec![], true));
}

#[test]
fn a_client_that_does_not_read_its_reply_is_cut_after_five_seconds() {
    let mut test_loop = TestLoop::new();
    let mut client = test_loop.connect();
    test_loop.send(&mut client, get(&format!("/fill/a/{BODY}")).as_bytes());
    assert_eq!(test_loop.pages.asked, 1);
    test_loop.pass(PATIENCE - Duration::from_millis(1));
    assert!(test_loop.server.deadline().is_some());
    test_loop.pass(Duration::from_millis(1));
    assert_eq!(test_loop.server.deadline(), None, "its slot is free");
    let mut all = Vec::new();
    // The kernel may still hold some of it, or say that the rest was reset.
    let _ = client.set_nonblocking(false).and_then(|()| client.read_to_end(&mut all));
    assert!(all.len() < BODY, "the rest was never sent");
}

#[test]
fn a_half_sent_page_is_not_overwritten_by_the_next() {
    let mut test_loop = TestLoop::new();
    let (mut slow, mut quick) = (test_loop.connect(), test_loop.connect());
    test_loop.send(&mut slow, get(&format!("/fill/a/{BODY}")).as_bytes());
    for _ in 0..3 {
        test_loop.send(&mut quick, get("/fill/b/100000").as_bytes());
        let (bytes, _) = test_loop.read(&mut quick);
        assert_eq!(answers(&bytes, false), [(200, vec![b'b'; 100_000])]);
    }
    let (bytes, _) = test_loop.read(&mut slow);
    let answers = answers(&bytes, false);
    assert_eq!((answers[0].0, answers[0].1.len()), (200, BODY));
    assert!(answers[0].1.iter().all(|byte| *byte == b'a'));
}

#[test]
fn the_seventeenth_connection_gets_503_until_another_closes() {
    let mut test_loop = TestLoop::new();
    let mut sixteen: Vec<Client> = (0..16).map(|_| test_loop.connect()).collect();
    let (refused, ended) = test_loop.ask(&get("/fill/a/1"));
    assert_eq!((refused.len(), refused[0].0, ended), (1, 503, true));
    assert!(refused[0].1.ends_with(b"soon\n"));
    for client in &mut sixteen {
        test_loop.send(client, get("/fill/a/1").as_bytes());
        assert_eq!(answers(&test_loop.read(client).0, false), [(200, b"a".to_vec())]);
    }
    drop(sixteen.pop());
    test_loop.settle();
    assert_eq!(test_loop.ask(&get("/fill/a/1")).0, [(200, b"a".to_vec())]);
}

#[test]
fn many_connections_at_once_are_accepted_over_several_turns() {
    let mut test_loop = TestLoop::new();
    let address = test_loop.server.address();
    let mut crowd: Vec<Client> = (0..100).map(|_| Client::connect(address).expect("listens")).collect();
    test_loop.settle();
    let statuses: Vec<u16> = crowd
        .iter_mut()
        .map(|client| {
            client.set_nonblocking(true).expect("a socket");
            let _ = client.write_all(get("/fill/a/1").as_bytes());
            let (bytes, _) = test_loop.read(client);
            answers(&bytes, false)[0].0
        })
        .collect();
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 16);
    assert_eq!(statuses.into_iter().collect::<HashSet<_>>(), HashSet::from([200, 503]));
}

#[test]
fn bytes_after_a_refused_request_are_dropped() {
    let mut test_loop = TestLoop::new();
    let mut client = test_loop.connect();
    test_loop.send(&mut client, b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n");
    for _ in 0..50 {
        client.write_all(get("/fill/a/1").as_bytes()).expect("it listens on");
    }
    let (bytes, ended) = test_loop.read(&mut client);
    assert_eq!((answers(&bytes, false)[0].0, answers(&bytes, false).len(), ended), (413, 1, true));
    assert_eq!(test_loop.pages.asked, 0);
    test_loop.pass(Duration::from_secs(1));
    assert_eq!(test_loop.server.deadline(), None, "one that does not close is closed");
}

#[test]
fn a_port_in_use_is_an_error_that_names_it_and_what_to_do() {
    let test_loop = TestLoop::new();
    let error = Server::bind(test_loop.server.address(), test_loop.poll.registry(), 0..17, 0);
    let text = error.expect_err("it is taken").to_string();
    assert!(text.contains(&test_loop.server.address().to_string()), "{text}");
    assert!(text.contains("in use by another program; set `listen` in [http]"), "{text}");
}

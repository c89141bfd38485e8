use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener as StdListener, UnixStream as Client};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use mio::{Events, Poll};

use super::*;
use crate::sys;

mod socket;

const TOKENS: Range<usize> = 200..209;

/// A folder for one test's socket.
struct TempDir(PathBuf);

impl TempDir {
    fn new() -> TempDir {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("onset-control-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let temp_dir = std::env::temp_dir().join(name);
        std::fs::create_dir(&temp_dir).expect("a new folder");
        TempDir(temp_dir)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("onset.sock")
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).expect("our folder").flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The agent's loop in small, with a clock that a test moves.
struct TestLoop {
    poll: Poll,
    server: Server,
    now: Duration,
    asked: Vec<(ConnectionId, ControlRequest)>,
    temp_dir: TempDir,
}

impl TestLoop {
    fn new(group: Option<&str>) -> TestLoop {
        let (poll, temp_dir) = (Poll::new().expect("epoll"), TempDir::new());
        let server =
            Server::bind(&temp_dir.socket(), group, poll.registry(), TOKENS).expect("nobody is there");
        TestLoop { poll, server, now: Duration::from_secs(1000), asked: Vec::new(), temp_dir }
    }

    fn connect(&mut self) -> Client {
        let client = Client::connect(self.temp_dir.socket()).expect("it listens");
        self.settle();
        client
    }

    fn turn(&mut self, wait: Duration) -> bool {
        let mut events = Events::with_capacity(64);
        let pending = self.server.pending();
        self.poll.poll(&mut events, Some(if pending { Duration::ZERO } else { wait })).expect("epoll");
        let asked = &mut self.asked;
        let mut each = |caller, ask| asked.push((caller, ask));
        if pending {
            self.server.resume(self.now, &mut each);
        }
        for event in &events {
            self.server.ready(event.token(), self.now, &mut each);
        }
        pending || !events.is_empty()
    }

    fn settle(&mut self) {
        while self.turn(Duration::from_millis(5)) {}
    }

    fn send(&mut self, client: &mut Client, text: &[u8]) {
        client.write_all(text).expect("room for a request");
        self.settle();
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.server.expire(self.now);
        self.settle();
    }

    fn reply(&mut self, caller: ConnectionId, text: &str) -> bool {
        let told = self.server.reply(caller, self.now, |buf| serde_json::to_writer(buf, text));
        self.settle();
        told
    }
}

/// All that the server said before it closed.
fn heard(mut client: Client) -> String {
    client.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket");
    let mut text = String::new();
    client.read_to_string(&mut text).expect("it closes");
    text
}

#[test]
fn control_requests_have_the_documented_json() {
    for (ask, text) in [
        (ControlRequest::Status {}, r#"{"status":{}}"#),
        (
            ControlRequest::Trigger {
                tracer: "dload".into(),
                container: Some("abc".into()),
                seconds: Some(5),
            },
            r#"{"trigger":{"tracer":"dload","container":"abc","seconds":5}}"#,
        ),
        (
            ControlRequest::Trigger { tracer: "dload".into(), container: None, seconds: None },
            r#"{"trigger":{"tracer":"dload"}}"#,
        ),
    ] {
        assert_eq!(serde_json::to_string(&ask).expect("JSON"), text);
        assert_eq!(serde_json::from_str::<ControlRequest>(text).expect("JSON"), ask);
    }
    let outcome = |text| serde_json::from_str::<Outcome>(text).expect("JSON");
    assert_eq!(outcome(r#"{"id":"x"}"#), Outcome::Id("x".into()));
    assert_eq!(outcome(r#"{"refused":"busy"}"#), Outcome::Refused("busy".into()));
}

#[test]
fn a_caller_gets_one_line_once_its_reply_is_ready() {
    let mut test_loop = TestLoop::new(None);
    let mut client = test_loop.connect();
    test_loop.send(&mut client, b"{\"status\"");
    assert!(test_loop.asked.is_empty());
    test_loop.send(&mut client, b":{}}\n");
    let [(caller, ControlRequest::Status {})] = test_loop.asked[..] else { panic!("{:?}", test_loop.asked) };
    test_loop.pass(Duration::from_secs(119));
    assert!(test_loop.reply(caller, "well"));
    assert!(!test_loop.reply(caller, "again"), "each is answered once");
    assert_eq!(heard(client), "\"well\"\n");
}

#[test]
fn an_invalid_control_request_is_refused_with_the_reason() {
    let mut test_loop = TestLoop::new(None);
    let long = vec![b' '; REQUEST_MAX];
    for (request, why) in [
        (&b"{\"reboot\":{}}\n"[..], "unknown variant"),
        (b"{\"trigger\":{}}\n", "missing field `tracer`"),
        (b"{\"trigger\":{\"tracer\":\"x\",\"user\":1}}\n", "unknown field"),
        (b"\xff\x00\n", "not understood"),
        (b"\n", "not understood"),
        (&long, "at most 4 KiB"),
    ] {
        let mut client = test_loop.connect();
        test_loop.send(&mut client, request);
        let text = heard(client);
        assert!(matches!(serde_json::from_str(&text), Ok(Outcome::Refused(_))), "{text}");
        assert!(text.contains(why) && text.ends_with("}\n"), "{text}");
        test_loop.settle();
    }
    assert!(test_loop.asked.is_empty());
    assert_eq!(test_loop.server.deadline(), None, "nobody is left");
}

#[test]
fn a_request_has_five_seconds_to_come_and_an_answer_two_minutes() {
    let mut test_loop = TestLoop::new(None);
    let (silent, mut patient) = (test_loop.connect(), test_loop.connect());
    test_loop.send(&mut patient, b"{\"status\":{}}\n");
    test_loop.pass(PATIENCE);
    assert_eq!(heard(silent), "");
    test_loop.pass(REPLY_WITHIN - PATIENCE - Duration::from_millis(1));
    assert!(test_loop.server.deadline().is_some());
    test_loop.pass(Duration::from_millis(1));
    assert_eq!(heard(patient), "");
    assert!(!test_loop.reply(test_loop.asked[0].0, "too late"));
}

#[test]
fn a_closed_connection_frees_its_slot_and_its_id_is_not_reused() {
    let mut test_loop = TestLoop::new(None);
    let mut first = test_loop.connect();
    test_loop.send(&mut first, b"{\"status\":{}}\n");
    drop(first);
    test_loop.settle();
    assert_eq!(test_loop.server.deadline(), None, "its slot is free");
    let mut second = test_loop.connect();
    test_loop.send(&mut second, b"{\"status\":{}}\n");
    let (gone, there) = (test_loop.asked[0].0, test_loop.asked[1].0);
    assert_ne!(gone, there);
    assert!(!test_loop.reply(gone, "for the first"));
    assert!(test_loop.reply(there, "for the second"));
    assert_eq!(heard(second), "\"for the second\"\n");
}

#[test]
fn a_caller_that_shuts_its_sending_side_still_gets_its_reply() {
    let mut test_loop = TestLoop::new(None);
    let mut client = test_loop.connect();
    test_loop.send(&mut client, b"{\"status\":{}}\n");
    client.shutdown(std::net::Shutdown::Write).expect("a socket");
    test_loop.settle();
    assert!(test_loop.reply(test_loop.asked[0].0, "well"));
    assert_eq!(heard(client), "\"well\"\n");
}

#[test]
fn a_too_long_reply_is_replaced_by_a_refusal() {
    let mut test_loop = TestLoop::new(None);
    let mut client = test_loop.connect();
    test_loop.send(&mut client, b"{\"status\":{}}\n");
    assert!(test_loop.reply(test_loop.asked[0].0, &"x".repeat(REPLY_MAX)));
    assert!(matches!(serde_json::from_str(&heard(client)), Ok(Outcome::Refused(_))));
}

#[test]
fn the_ninth_control_connection_is_refused() {
    let mut test_loop = TestLoop::new(None);
    let _eight: Vec<Client> = (0..8).map(|_| test_loop.connect()).collect();
    let ninth = test_loop.connect();
    assert_eq!(heard(ninth).as_bytes(), FULL);
}

#[test]
fn the_control_client_sends_a_request_and_reads_the_reply() {
    let mut test_loop = TestLoop::new(None);
    let socket = test_loop.temp_dir.socket();
    let asking = thread::spawn(move || ask(&socket, &ControlRequest::Status {}, Duration::from_secs(10)));
    while test_loop.asked.is_empty() {
        test_loop.turn(Duration::from_secs(10));
    }
    assert!(test_loop.reply(test_loop.asked[0].0, "well"));
    assert_eq!(asking.join().expect("no panic").expect("a reply"), "\"well\"");
}

#[test]
fn the_control_client_reports_a_missing_hung_or_dying_agent() {
    let temp_dir = TempDir::new();
    let error = |patience| ask(&temp_dir.socket(), &ControlRequest::Status {}, patience).expect_err("nobody");
    assert!(error(Duration::from_secs(1)).to_string().starts_with("no onset answers on "));
    let listener = StdListener::bind(temp_dir.socket()).expect("a new socket");
    assert!(matches!(error(Duration::from_millis(10)), Error::Late(..)), "it hangs");
    let rude = thread::spawn(move || {
        let _late = listener.accept().expect("the one that did not wait");
        let (stream, _) = listener.accept().expect("a caller");
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).expect("a request");
    });
    assert!(matches!(error(Duration::from_secs(10)), Error::HungUp(_)));
    rude.join().expect("no panic");
    assert!(matches!(error(Duration::from_secs(1)), Error::Silent(_)), "it died");
}

/// Calls the server as another user, with these groups, and gives what that one heard. The test that
/// calls this is run again as that user.
fn called_by(test_loop: &mut TestLoop, test: &str, groups: &[u32]) -> String {
    use std::os::unix::process::CommandExt as _;
    let heard = test_loop.temp_dir.0.join("heard");
    std::fs::write(&heard, "").expect("ours");
    std::fs::set_permissions(&heard, std::fs::Permissions::from_mode(0o666)).expect("ours");
    std::fs::set_permissions(&test_loop.temp_dir.0, std::fs::Permissions::from_mode(0o755)).expect("ours");
    let [first, more @ ..] = groups else { panic!("everyone has a group") };
    let more: Vec<libc::gid_t> = more.to_vec();
    let mut peer = std::process::Command::new("/proc/self/exe");
    peer.args(["--exact", &format!("control::tests::{test}")]).stdout(std::process::Stdio::null());
    peer.env("ONSET_TEST_PEER", test_loop.temp_dir.socket()).env("ONSET_TEST_HEARD", &heard);
    peer.gid(*first);
    // SAFETY: setgroups(2) and setuid(2) are async-signal-safe, and the groups outlive the call.
    unsafe {
        peer.pre_exec(move || {
            let done = libc::setgroups(more.len(), more.as_ptr()) == 0 && libc::setuid(65_534) == 0;
            if done { Ok(()) } else { Err(io::Error::last_os_error()) }
        });
    }
    let mut peer = peer.spawn().expect("this program again");
    let status = loop {
        test_loop.turn(Duration::from_millis(50));
        for (caller, _) in std::mem::take(&mut test_loop.asked) {
            test_loop.reply(caller, "well");
        }
        if let Some(status) = peer.try_wait().expect("our child") {
            break status;
        }
    };
    assert!(status.success());
    std::fs::read_to_string(heard).expect("ours")
}

/// The peer's side of `called_by`. Whether this is a peer.
fn peer() -> bool {
    let (Some(socket), Some(to)) =
        (std::env::var_os("ONSET_TEST_PEER"), std::env::var_os("ONSET_TEST_HEARD"))
    else {
        return false;
    };
    let said = match Client::connect(socket) {
        Ok(mut client) => {
            let _ = client.write_all(b"{\"status\":{}}\n");
            heard(client)
        }
        Err(error) => error.kind().to_string(),
    };
    std::fs::write(to, said).expect("it is for everyone");
    true
}

#[test]
fn another_user_is_refused_by_credentials_even_where_the_mode_allows_it() {
    const TEST: &str = "another_user_is_refused_by_credentials_even_where_the_mode_allows_it";
    if peer() {
        return;
    }
    if sys::user() != 0 {
        eprintln!("not root: cannot act as another user");
        return;
    }
    let mut test_loop = TestLoop::new(None);
    assert_eq!(called_by(&mut test_loop, TEST, &[65_534]), "permission denied");
    std::fs::set_permissions(test_loop.temp_dir.socket(), std::fs::Permissions::from_mode(0o666))
        .expect("ours");
    let heard = called_by(&mut test_loop, TEST, &[65_534]);
    assert!(heard.contains("only root and the agent's own user"), "{heard}");
}

#[test]
fn only_members_of_socket_group_are_served() {
    const TEST: &str = "only_members_of_socket_group_are_served";
    if peer() {
        return;
    }
    if sys::user() != 0 {
        eprintln!("not root: cannot act as another user");
        return;
    }
    let mut test_loop = TestLoop::new(Some("64318"));
    use std::os::unix::fs::MetadataExt as _;
    let file = std::fs::metadata(test_loop.temp_dir.socket()).expect("it listens");
    assert_eq!((file.mode() & 0o777, file.uid(), file.gid()), (0o660, 0, 64_318));
    assert_eq!(called_by(&mut test_loop, TEST, &[64_318]), "\"well\"\n", "its first group");
    assert_eq!(called_by(&mut test_loop, TEST, &[65_534, 7, 64_318]), "\"well\"\n", "one of its others");
    assert_eq!(called_by(&mut test_loop, TEST, &[65_534, 7]), "permission denied");
    std::fs::set_permissions(test_loop.temp_dir.socket(), std::fs::Permissions::from_mode(0o666))
        .expect("ours");
    let heard = called_by(&mut test_loop, TEST, &[65_534, 7]);
    assert!(heard.contains("members of its socket_group"), "{heard}");
}

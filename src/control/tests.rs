use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener as StdListener, UnixStream as Client};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use mio::{Events, Poll};

use super::*;
use crate::sys;

const TOKENS: Range<usize> = 200..209;

/// A folder for one test's socket.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("onset-control-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir(&folder).expect("a new folder");
        Folder(folder)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("onset.sock")
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).expect("our folder").flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The agent's loop in small, with a clock that a test moves.
struct World {
    poll: Poll,
    server: Server,
    now: Duration,
    asked: Vec<(Caller, ControlRequest)>,
    folder: Folder,
}

impl World {
    fn new(group: Option<&str>) -> World {
        let (poll, folder) = (Poll::new().expect("epoll"), Folder::new());
        let server = Server::bind(&folder.socket(), group, poll.registry(), TOKENS).expect("nobody is there");
        World { poll, server, now: Duration::from_secs(1000), asked: Vec::new(), folder }
    }

    fn connect(&mut self) -> Client {
        let client = Client::connect(self.folder.socket()).expect("it listens");
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

    fn reply(&mut self, caller: Caller, text: &str) -> bool {
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
fn requests_look_on_the_wire_as_documented() {
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
fn a_caller_gets_one_line_when_its_answer_is_there_and_not_before() {
    let mut world = World::new(None);
    let mut client = world.connect();
    world.send(&mut client, b"{\"status\"");
    assert!(world.asked.is_empty());
    world.send(&mut client, b":{}}\n");
    let [(caller, ControlRequest::Status {})] = world.asked[..] else { panic!("{:?}", world.asked) };
    world.pass(Duration::from_secs(119));
    assert!(world.reply(caller, "well"));
    assert!(!world.reply(caller, "again"), "each is answered once");
    assert_eq!(heard(client), "\"well\"\n");
}

#[test]
fn what_is_not_understood_is_refused_with_the_reason() {
    let mut world = World::new(None);
    let long = vec![b' '; REQUEST_MAX];
    for (request, why) in [
        (&b"{\"reboot\":{}}\n"[..], "unknown variant"),
        (b"{\"trigger\":{}}\n", "missing field `tracer`"),
        (b"{\"trigger\":{\"tracer\":\"x\",\"user\":1}}\n", "unknown field"),
        (b"\xff\x00\n", "not understood"),
        (b"\n", "not understood"),
        (&long, "at most 4 KiB"),
    ] {
        let mut client = world.connect();
        world.send(&mut client, request);
        let text = heard(client);
        assert!(matches!(serde_json::from_str(&text), Ok(Outcome::Refused(_))), "{text}");
        assert!(text.contains(why) && text.ends_with("}\n"), "{text}");
        world.settle();
    }
    assert!(world.asked.is_empty());
    assert_eq!(world.server.deadline(), None, "nobody is left");
}

#[test]
fn a_request_has_five_seconds_to_come_and_an_answer_two_minutes() {
    let mut world = World::new(None);
    let (silent, mut patient) = (world.connect(), world.connect());
    world.send(&mut patient, b"{\"status\":{}}\n");
    world.pass(PATIENCE);
    assert_eq!(heard(silent), "");
    world.pass(REPLY_WITHIN - PATIENCE - Duration::from_millis(1));
    assert!(world.server.deadline().is_some());
    world.pass(Duration::from_millis(1));
    assert_eq!(heard(patient), "");
    assert!(!world.reply(world.asked[0].0, "too late"));
}

#[test]
fn a_caller_that_left_frees_its_slot_and_its_name_reaches_nobody_else() {
    let mut world = World::new(None);
    let mut first = world.connect();
    world.send(&mut first, b"{\"status\":{}}\n");
    drop(first);
    world.settle();
    assert_eq!(world.server.deadline(), None, "its slot is free");
    let mut second = world.connect();
    world.send(&mut second, b"{\"status\":{}}\n");
    let (gone, there) = (world.asked[0].0, world.asked[1].0);
    assert_ne!(gone, there);
    assert!(!world.reply(gone, "for the first"));
    assert!(world.reply(there, "for the second"));
    assert_eq!(heard(second), "\"for the second\"\n");
}

#[test]
fn a_caller_that_only_ended_its_side_is_waited_for() {
    let mut world = World::new(None);
    let mut client = world.connect();
    world.send(&mut client, b"{\"status\":{}}\n");
    client.shutdown(std::net::Shutdown::Write).expect("a socket");
    world.settle();
    assert!(world.reply(world.asked[0].0, "well"));
    assert_eq!(heard(client), "\"well\"\n");
}

#[test]
fn a_reply_that_does_not_fit_is_refused_and_not_cut_off() {
    let mut world = World::new(None);
    let mut client = world.connect();
    world.send(&mut client, b"{\"status\":{}}\n");
    assert!(world.reply(world.asked[0].0, &"x".repeat(REPLY_MAX)));
    assert!(matches!(serde_json::from_str(&heard(client)), Ok(Outcome::Refused(_))));
}

#[test]
fn the_ninth_caller_is_told_to_try_again() {
    let mut world = World::new(None);
    let _eight: Vec<Client> = (0..8).map(|_| world.connect()).collect();
    let ninth = world.connect();
    assert_eq!(heard(ninth).as_bytes(), FULL);
}

#[test]
fn the_socket_is_for_its_user_only_and_goes_with_the_server() {
    let world = World::new(None);
    let mode = std::fs::metadata(world.folder.socket()).expect("a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(world.folder.names(), ["onset.sock"], "nothing else is left there");
    let World { server, folder, .. } = world;
    drop(server);
    assert!(folder.names().is_empty());
}

#[test]
fn the_socket_of_a_dead_agent_is_replaced_that_of_a_live_one_is_not() {
    let (poll, folder) = (Poll::new().expect("epoll"), Folder::new());
    drop(StdListener::bind(folder.socket()).expect("a new socket"));
    assert_eq!(folder.names(), ["onset.sock"], "std leaves it behind, as a killed agent does");
    // And one that was killed between two steps left this.
    std::fs::create_dir(folder.0.join("onset.sock.new")).expect("a folder");
    std::fs::write(folder.0.join("onset.sock.new/s"), "").expect("a file");
    let server = Server::bind(&folder.socket(), None, poll.registry(), TOKENS).expect("it is dead");
    let again = Server::bind(&folder.socket(), None, poll.registry(), 300..309).expect_err("it lives");
    assert!(again.to_string().starts_with("another onset answers on "), "{again}");
    assert!(Client::connect(folder.socket()).is_ok(), "the refused one took nothing away");
    drop(server);
}

#[test]
fn the_socket_of_an_agent_that_is_exiting_is_waited_for() {
    let (poll, folder) = (Poll::new().expect("epoll"), Folder::new());
    let exiting = StdListener::bind(folder.socket()).expect("a new socket");
    let exit = thread::spawn(move || {
        let _caller = exiting.accept().expect("the new agent asks whether another answers");
    });
    Server::bind(&folder.socket(), None, poll.registry(), TOKENS).expect("the other has exited");
    exit.join().expect("no panic");
}

#[test]
fn a_server_leaves_a_socket_that_is_no_longer_its_own() {
    let world = World::new(None);
    std::fs::remove_file(world.folder.socket()).expect("someone removes it");
    let _other = StdListener::bind(world.folder.socket()).expect("and another takes the place");
    let World { server, folder, .. } = world;
    drop(server);
    assert_eq!(folder.names(), ["onset.sock"]);
}

#[test]
fn a_path_that_cannot_be_a_socket_is_an_error_that_says_what_to_do() {
    let (poll, folder) = (Poll::new().expect("epoll"), Folder::new());
    let error = |path: &Path| match Server::bind(path, None, poll.registry(), TOKENS) {
        Ok(_) => panic!("{} was taken", path.display()),
        Err(error) => error.to_string(),
    };
    std::fs::write(folder.socket(), "precious").expect("a file");
    assert!(error(&folder.socket()).contains("is there and is no socket; remove it"));
    assert_eq!(std::fs::read(folder.socket()).expect("still there"), b"precious");
    assert!(error(&folder.0.join("x".repeat(120))).contains("too long for a socket"));
    assert!(error(&folder.0.join("no/folder/here")).contains("cannot make the socket"));
}

#[test]
fn the_client_asks_and_hears() {
    let mut world = World::new(None);
    let socket = world.folder.socket();
    let asking = thread::spawn(move || ask(&socket, &ControlRequest::Status {}, Duration::from_secs(10)));
    while world.asked.is_empty() {
        world.turn(Duration::from_secs(10));
    }
    assert!(world.reply(world.asked[0].0, "well"));
    assert_eq!(asking.join().expect("no panic").expect("a reply"), "\"well\"");
}

#[test]
fn a_client_without_an_agent_is_told_so() {
    let folder = Folder::new();
    let error = |patience| ask(&folder.socket(), &ControlRequest::Status {}, patience).expect_err("nobody");
    assert!(error(Duration::from_secs(1)).to_string().starts_with("no onset answers on "));
    let listener = StdListener::bind(folder.socket()).expect("a new socket");
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
fn called_by(world: &mut World, test: &str, groups: &[u32]) -> String {
    use std::os::unix::process::CommandExt as _;
    let heard = world.folder.0.join("heard");
    std::fs::write(&heard, "").expect("ours");
    std::fs::set_permissions(&heard, std::fs::Permissions::from_mode(0o666)).expect("ours");
    std::fs::set_permissions(&world.folder.0, std::fs::Permissions::from_mode(0o755)).expect("ours");
    let [first, more @ ..] = groups else { panic!("everyone has a group") };
    let more: Vec<libc::gid_t> = more.to_vec();
    let mut peer = std::process::Command::new("/proc/self/exe");
    peer.args(["--exact", &format!("control::tests::{test}")]).stdout(std::process::Stdio::null());
    peer.env("ONSET_TEST_PEER", world.folder.socket()).env("ONSET_TEST_HEARD", &heard);
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
        world.turn(Duration::from_millis(50));
        for (caller, _) in std::mem::take(&mut world.asked) {
            world.reply(caller, "well");
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
fn a_stranger_is_refused_even_where_the_mode_would_let_it_in() {
    const TEST: &str = "a_stranger_is_refused_even_where_the_mode_would_let_it_in";
    if peer() {
        return;
    }
    if sys::user() != 0 {
        eprintln!("not root: cannot act as another user");
        return;
    }
    let mut world = World::new(None);
    assert_eq!(called_by(&mut world, TEST, &[65_534]), "permission denied");
    std::fs::set_permissions(world.folder.socket(), std::fs::Permissions::from_mode(0o666)).expect("ours");
    let heard = called_by(&mut world, TEST, &[65_534]);
    assert!(heard.contains("only root and the agent's own user"), "{heard}");
}

#[test]
fn members_of_the_sockets_group_are_served_and_nobody_else() {
    const TEST: &str = "members_of_the_sockets_group_are_served_and_nobody_else";
    if peer() {
        return;
    }
    if sys::user() != 0 {
        eprintln!("not root: cannot act as another user");
        return;
    }
    let mut world = World::new(Some("64318"));
    use std::os::unix::fs::MetadataExt as _;
    let file = std::fs::metadata(world.folder.socket()).expect("it listens");
    assert_eq!((file.mode() & 0o777, file.uid(), file.gid()), (0o660, 0, 64_318));
    assert_eq!(called_by(&mut world, TEST, &[64_318]), "\"well\"\n", "its first group");
    assert_eq!(called_by(&mut world, TEST, &[65_534, 7, 64_318]), "\"well\"\n", "one of its others");
    assert_eq!(called_by(&mut world, TEST, &[65_534, 7]), "permission denied");
    std::fs::set_permissions(world.folder.socket(), std::fs::Permissions::from_mode(0o666)).expect("ours");
    let heard = called_by(&mut world, TEST, &[65_534, 7]);
    assert!(heard.contains("members of its socket_group"), "{heard}");
}

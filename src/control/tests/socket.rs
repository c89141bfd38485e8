//! The socket's file: its mode, whose it replaces, and whom it waits for.

use super::*;

#[test]
fn the_socket_has_mode_0600_and_is_removed_with_the_server() {
    let test_loop = TestLoop::new(None);
    let mode = std::fs::metadata(test_loop.temp_dir.socket()).expect("a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(test_loop.temp_dir.names(), ["onset.sock"], "nothing else is left there");
    let TestLoop { server, temp_dir, .. } = test_loop;
    drop(server);
    assert!(temp_dir.names().is_empty());
}

#[test]
fn a_dead_agents_socket_is_replaced_a_live_ones_is_not() {
    let (poll, temp_dir) = (Poll::new().expect("epoll"), TempDir::new());
    drop(StdListener::bind(temp_dir.socket()).expect("a new socket"));
    assert_eq!(temp_dir.names(), ["onset.sock"], "std leaves it behind, as a killed agent does");
    // And one that was killed between two steps left this.
    std::fs::create_dir(temp_dir.0.join("onset.sock.new")).expect("a folder");
    std::fs::write(temp_dir.0.join("onset.sock.new/s"), "").expect("a file");
    let server = Server::bind(&temp_dir.socket(), None, poll.registry(), TOKENS).expect("it is dead");
    let again = Server::bind(&temp_dir.socket(), None, poll.registry(), 300..309).expect_err("it lives");
    assert!(again.to_string().starts_with("another onset answers on "), "{again}");
    assert!(Client::connect(temp_dir.socket()).is_ok(), "the refused one took nothing away");
    drop(server);
}

#[test]
fn the_socket_of_an_agent_that_is_exiting_is_waited_for() {
    let (poll, temp_dir) = (Poll::new().expect("epoll"), TempDir::new());
    let exiting = StdListener::bind(temp_dir.socket()).expect("a new socket");
    let exit = thread::spawn(move || {
        let _caller = exiting.accept().expect("the new agent asks whether another answers");
    });
    Server::bind(&temp_dir.socket(), None, poll.registry(), TOKENS).expect("the other has exited");
    exit.join().expect("no panic");
}

#[test]
fn a_server_leaves_a_socket_that_is_no_longer_its_own() {
    let test_loop = TestLoop::new(None);
    std::fs::remove_file(test_loop.temp_dir.socket()).expect("someone removes it");
    let _other = StdListener::bind(test_loop.temp_dir.socket()).expect("and another takes the place");
    let TestLoop { server, temp_dir, .. } = test_loop;
    drop(server);
    assert_eq!(temp_dir.names(), ["onset.sock"]);
}

#[test]
fn a_path_that_cannot_be_a_socket_is_an_error_that_says_what_to_do() {
    let (poll, temp_dir) = (Poll::new().expect("epoll"), TempDir::new());
    let error = |path: &Path| match Server::bind(path, None, poll.registry(), TOKENS) {
        Ok(_) => panic!("{} was taken", path.display()),
        Err(error) => error.to_string(),
    };
    std::fs::write(temp_dir.socket(), "precious").expect("a file");
    assert!(error(&temp_dir.socket()).contains("is there and is no socket; remove it"));
    assert_eq!(std::fs::read(temp_dir.socket()).expect("still there"), b"precious");
    assert!(error(&temp_dir.0.join("x".repeat(120))).contains("too long for a socket"));
    assert!(error(&temp_dir.0.join("no/folder/here")).contains("cannot make the socket"));
}

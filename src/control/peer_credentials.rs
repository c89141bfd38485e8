//! The credentials of whoever connects: the kernel tells the peer's user and groups (SO_PEERCRED, SO_PEERGROUPS).
//! A peer that may not speak is told so and disconnected. The socket's mode says the same, but it can be changed.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::path::PathBuf;

use mio::event::Source;
use mio::net::{UnixListener, UnixStream};
use mio::{Interest, Registry, Token};

use super::Error;
use crate::net::{Listener, Stream};
use crate::sys;

/// Where groups have their names.
const GROUPS: &str = "/etc/group";

const STRANGER: &[u8] = b"{\"refused\":\"only root and the agent's own user may ask\"}\n";
const NO_MEMBER: &[u8] =
    b"{\"refused\":\"only root, the agent's own user and members of its socket_group may ask\"}\n";

/// The number of a group, by its name or its number.
pub(super) fn group(name: &str) -> Result<u32, Error> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let text = std::fs::read_to_string(GROUPS).unwrap_or_default();
    numbered(&text, name).ok_or_else(|| Error::NoGroup(PathBuf::from(GROUPS), name.to_owned()))
}

/// group(5): name, password, number, members.
fn numbered(groups: &str, name: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
    })
}

/// /etc/group as a fuzz target: a group that is found is on a line of its own name.
#[cfg(any(test, feature = "fuzz"))]
pub(super) fn fuzz(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let names = text.lines().filter_map(|line| line.split(':').next());
    for name in names.take(64) {
        let number = numbered(&text, name);
        let mut fields = text.lines().flat_map(|line| line.split(':'));
        let there = |number: &u32| fields.any(|field| field.parse() == Ok(*number));
        assert!(number.as_ref().is_none_or(there), "{name} is {number:?}");
    }
    assert_eq!(numbered(&text, "no such group: it has a colon"), None);
}

/// A listener whose connections are checked: `group`, if any, may speak beside root and the agent's own user.
#[derive(Debug)]
pub(super) struct CheckedListener {
    listener: UnixListener,
    group: Option<u32>,
}

impl CheckedListener {
    pub(super) fn new(listener: UnixListener, group: Option<u32>) -> CheckedListener {
        CheckedListener { listener, group }
    }
}

/// An accepted connection, which may speak once `admit` has checked its peer.
#[derive(Debug)]
pub(super) struct CheckedStream {
    stream: UnixStream,
    group: Option<u32>,
}

impl Listener for CheckedListener {
    type Stream = CheckedStream;

    fn accept_stream(&self) -> io::Result<CheckedStream> {
        self.listener.accept().map(|(stream, _)| CheckedStream { stream, group: self.group })
    }
}

impl Stream for CheckedStream {
    fn authorize(&self) -> Result<(), &'static [u8]> {
        let known = sys::peer(&self.stream).is_ok_and(|(user, group)| {
            user == 0
                || user == sys::user()
                || self.group.is_some_and(|ours| group == ours || sys::peer_is_in(&self.stream, ours))
        });
        match self.group {
            _ if known => Ok(()),
            Some(_) => Err(NO_MEMBER),
            None => Err(STRANGER),
        }
    }

    fn finish(&self) {
        // It fails only where the caller is gone already.
        let _ = self.stream.shutdown(Shutdown::Write);
    }
}

macro_rules! source_of {
    ($of:ident, $inner:ident) => {
        impl Source for $of {
            fn register(&mut self, to: &Registry, token: Token, interest: Interest) -> io::Result<()> {
                self.$inner.register(to, token, interest)
            }

            fn reregister(&mut self, to: &Registry, token: Token, interest: Interest) -> io::Result<()> {
                self.$inner.reregister(to, token, interest)
            }

            fn deregister(&mut self, from: &Registry) -> io::Result<()> {
                self.$inner.deregister(from)
            }
        }
    };
}
source_of!(CheckedListener, listener);
source_of!(CheckedStream, stream);

impl Read for CheckedStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }
}

impl Write for CheckedStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_found_by_its_name_and_by_its_number() {
        let groups = "root:x:0:\nadm:x:4:syslog,ann\nbad:x:many:\n";
        assert_eq!(numbered(groups, "adm"), Some(4));
        assert_eq!(numbered(groups, "root"), Some(0));
        for wrong in ["ad", "syslog", "bad", "x", ""] {
            assert_eq!(numbered(groups, wrong), None, "{wrong}");
        }
        assert_eq!(group("4711").expect("a number"), 4711);
        let error = group("no such group").expect_err("none").to_string();
        assert!(error.contains("socket_group"), "{error}");
    }
}

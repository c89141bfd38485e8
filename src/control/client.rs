//! The asking end of the agent's socket.

use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{ControlRequest, Error};

/// No reply of an agent is longer.
const REPLY_MAX: usize = 1 << 20;

/// Asks the agent on this socket and waits for its reply: one line of JSON, without its end.
pub fn ask(socket: &Path, request: &ControlRequest, patience: Duration) -> Result<String, Error> {
    let until = Instant::now() + patience;
    let fail = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Error::Silent(socket.to_owned()),
        io::ErrorKind::PermissionDenied => Error::NotAllowed(socket.to_owned()),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Error::Late(socket.to_owned(), patience),
        io::ErrorKind::UnexpectedEof => Error::HungUp(socket.to_owned()),
        _ => Error::Talk(socket.to_owned(), error),
    };
    let line = talk(socket, request, until).map_err(fail)?;
    String::from_utf8(line).map_err(|error| fail(io::Error::new(io::ErrorKind::InvalidData, error)))
}

fn talk(socket: &Path, request: &ControlRequest, until: Instant) -> io::Result<Vec<u8>> {
    // An agent that hangs has a full backlog: mio's connect says so where std's would wait.
    let mut stream = UnixStream::from(OwnedFd::from(mio::net::UnixStream::connect(socket)?));
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(left(until)?))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    match stream.write_all(&line) {
        // An agent that turns us away may be done before we are. Its word still waits for us.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        other => other?,
    }
    let mut reply = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        stream.set_read_timeout(Some(left(until)?))?;
        let got = match stream.read(&mut chunk) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
            other => other?,
        };
        let new = chunk.get(..got).unwrap_or_default();
        if let Some(end) = new.iter().position(|byte| *byte == b'\n') {
            reply.extend_from_slice(new.get(..end).unwrap_or_default());
            return Ok(reply);
        }
        reply.extend_from_slice(new);
        if got == 0 || reply.len() > REPLY_MAX {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// What is left of the time, which a socket takes only if it is more than nothing.
fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

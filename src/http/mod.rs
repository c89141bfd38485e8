//! The HTTP endpoint: pages for GET and HEAD, nothing else. Every request gets exactly one
//! answer with its length, bad ones too; idle and slow clients are cut.

use std::fmt::Write as _;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::ops::Range;
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Registry, Token};

#[doc(hidden)]
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
pub mod request;

use crate::fixed_buf::{FixedBuf, Full};
use crate::net::{Limits, Listener, Response, Slots, Stream};
use crate::takeover;
use request::{Method, Parsed, Persistence, REQUEST_MAX, Request};

/// A head of ours is far shorter.
const HEAD_MAX: usize = 512;

/// An idle or slow client is cut after this time.
const PATIENCE: Duration = Duration::from_secs(5);

const PLAIN: &str = "text/plain; charset=utf-8";

const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Content-Length: 37\r\nRetry-After: 1\r\nConnection: close\r\n\r\ntoo many connections: come back soon\n";

/// What serves the pages.
pub trait Pages {
    /// Writes the page at `path` and returns its status and content type. An empty page becomes its status in words.
    /// `None`: there is no such page.
    fn page(&mut self, path: &str, to: &mut FixedBuf) -> Option<(u16, &'static str)>;
}

/// Why the endpoint cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// another program has the address
    #[error("{0} is in use by another program; set `listen` in [http] to another address")]
    InUse(SocketAddr),
    /// the address is not of this host
    #[error("{0} is no address of this host; set `listen` in [http] to one that is")]
    NotHere(SocketAddr),
    /// the port is not for us
    #[error("{0} may only be listened on by root; set `listen` in [http] to a port over 1023")]
    NotAllowed(SocketAddr),
    /// anything else
    #[error("cannot listen on {0}: {1}; see `listen` in [http]")]
    Other(SocketAddr, io::Error),
}

impl Error {
    fn new(address: SocketAddr, error: io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::AddrInUse => Error::InUse(address),
            io::ErrorKind::AddrNotAvailable => Error::NotHere(address),
            io::ErrorKind::PermissionDenied => Error::NotAllowed(address),
            _ => Error::Other(address, error),
        }
    }
}

/// The endpoint. Its owner passes it the events of its tokens, calls `resume` in every turn that begins with `pending`
/// (such a turn must not wait for events), and `expire` at its `deadline`.
#[derive(Debug)]
pub struct Server {
    slots: Slots<TcpListener>,
    address: SocketAddr,
    /// A page is written here before its head, which tells its length.
    body: FixedBuf,
}

impl Server {
    /// Listens, with one token for that and one for each connection. Waits for an agent that is exiting and still has
    /// the address. No page may be longer than `body_size`.
    pub fn bind(
        listen: SocketAddr,
        registry: &Registry,
        tokens: Range<usize>,
        body_size: usize,
    ) -> Result<Server, Error> {
        let limits =
            Limits { request: REQUEST_MAX, reply: HEAD_MAX + body_size, patience: PATIENCE, full: FULL };
        let error = |error| Error::new(listen, error);
        let in_use = |error: &io::Error| error.kind() == io::ErrorKind::AddrInUse;
        let listener = takeover::take(in_use, || TcpListener::bind(listen)).map_err(error)?;
        let address = listener.local_addr().map_err(error)?;
        let slots = Slots::new(listener, registry, tokens, limits).map_err(error)?;
        Ok(Server { slots, address, body: FixedBuf::new(body_size) })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Handles an event of one of its tokens.
    pub fn ready(&mut self, token: Token, now: Duration, pages: &mut dyn Pages) {
        let body = &mut self.body;
        self.slots.ready(token, now, &mut |_, received, reply| answer(received, reply, body, pages));
    }

    /// Whether there is work left that no event will announce.
    #[must_use]
    pub fn pending(&self) -> bool {
        self.slots.pending()
    }

    /// Continues the pending work.
    pub fn resume(&mut self, now: Duration, pages: &mut dyn Pages) {
        let body = &mut self.body;
        self.slots.resume(now, &mut |_, received, reply| answer(received, reply, body, pages));
    }

    /// When `expire` is next to be called.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        self.slots.deadline()
    }

    /// Closes every connection whose deadline has passed.
    pub fn expire(&mut self, now: Duration) {
        self.slots.expire(now);
    }
}

fn answer(received: &[u8], reply: &mut FixedBuf, body: &mut FixedBuf, pages: &mut dyn Pages) -> Response {
    body.clear();
    match request::parse(received) {
        Parsed::Incomplete => Response::Incomplete,
        Parsed::Bad(status) => {
            write(reply, body, &plain(status), Persistence::Close, true);
            Response::Reply { consumed: received.len(), last: true }
        }
        Parsed::Request(request) => {
            let answer = find(&request, body, pages);
            write(reply, body, &answer, request.persistence, request.method != Method::Head);
            Response::Reply { consumed: request.len, last: request.persistence == Persistence::Close }
        }
    }
}

/// A reply's status and content type; its body is in a buffer of its own.
struct ResponseHead {
    status: u16,
    kind: &'static str,
}

fn plain(status: u16) -> ResponseHead {
    ResponseHead { status, kind: PLAIN }
}

fn find(request: &Request<'_>, body: &mut FixedBuf, pages: &mut dyn Pages) -> ResponseHead {
    if request.method == Method::Other {
        return plain(405);
    }
    match pages.page(request.path, body) {
        Some((status, kind)) => ResponseHead { status, kind },
        None => {
            body.clear();
            plain(404)
        }
    }
}

/// Writes a whole reply. An empty body becomes the status in words.
fn write(
    reply: &mut FixedBuf,
    body: &mut FixedBuf,
    answer: &ResponseHead,
    persistence: Persistence,
    with_body: bool,
) {
    let words = reason(answer.status);
    if body.is_empty() {
        // Cannot fail: the buffer is empty.
        let _ = writeln!(body, "{words}");
    }
    if try_write(reply, body, answer, words, persistence, with_body).is_err() {
        // The reply's buffer is made to hold the longest head and body.
        reply.clear();
        let _ = reply.push(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n");
    }
}

fn try_write(
    reply: &mut FixedBuf,
    body: &FixedBuf,
    answer: &ResponseHead,
    words: &str,
    persistence: Persistence,
    with_body: bool,
) -> std::fmt::Result {
    let (status, kind, len) = (answer.status, answer.kind, body.len());
    write!(reply, "HTTP/1.1 {status} {words}\r\nContent-Type: {kind}\r\nContent-Length: {len}\r\n")?;
    if status == 405 {
        reply.write_str("Allow: GET, HEAD\r\n")?;
    }
    reply.write_str(match persistence {
        Persistence::KeepAlive => "\r\n",
        Persistence::AskedKeepAlive => "Connection: keep-alive\r\n\r\n",
        Persistence::Close => "Connection: close\r\n\r\n",
    })?;
    if with_body {
        reply.push(body).map_err(|Full| std::fmt::Error)?;
    }
    Ok(())
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        413 => "Content Too Large",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Unknown",
    }
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    fn accept_stream(&self) -> io::Result<TcpStream> {
        self.accept().map(|(stream, _)| stream)
    }
}

impl Stream for TcpStream {
    fn authorize(&self) -> Result<(), &'static [u8]> {
        // A reply is written whole; without this its last part could wait for an acknowledgement.
        let _ = self.set_nodelay(true);
        Ok(())
    }

    fn finish(&self) {
        // It fails only where the client is gone already.
        let _ = self.shutdown(Shutdown::Write);
    }
}

#[cfg(test)]
mod tests;

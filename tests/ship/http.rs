//! The tests' own client: one request on a connection of its own, the answer as JSON. It shares
//! nothing with the agent's, so neither hides the other's mistakes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};

use serde_json::Value;

use crate::rig::SOON;

/// A port of loopback that nobody listens on. Below those that the kernel gives to outgoing
/// connections: a client that is refused there again and again could end up connected to itself, and
/// a server that is started again must find its port free.
pub fn free_port() -> u16 {
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 12_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let own = (std::process::id() % u32::from(COUNT)) as u16;
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + (own.wrapping_mul(7) % COUNT + step) % COUNT;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port of loopback is free");
}

/// Asks and gives status and body; none while nobody answers there.
pub fn try_ask(to: SocketAddr, method: &str, path: &str, body: Option<&str>) -> Option<(u16, Value)> {
    let (status, body) = exchange(to, method, path, body).ok()?;
    let body = serde_json::from_slice(&body)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&body).into_owned()));
    Some((status, body))
}

fn exchange(to: SocketAddr, method: &str, path: &str, body: Option<&str>) -> std::io::Result<(u16, Vec<u8>)> {
    let stream = TcpStream::connect_timeout(&to, SOON)?;
    stream.set_read_timeout(Some(SOON * 3))?;
    let body = body.unwrap_or_default();
    let kind = if path.contains("_bulk") { "application/x-ndjson" } else { "application/json" };
    write!(
        &stream,
        "{method} {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut from = BufReader::new(stream);
    let mut line = String::new();
    from.read_line(&mut line)?;
    let broken = || std::io::Error::other("no HTTP");
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(broken)?;
    let mut length = None;
    loop {
        line.clear();
        from.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse::<usize>().ok();
        }
    }
    // Without a length the end of the connection is the end of the body.
    let mut body = vec![0; length.unwrap_or(0)];
    match length {
        Some(_) => from.read_exact(&mut body)?,
        None => drop(from.read_to_end(&mut body)?),
    }
    Ok((status, body))
}

//! A server under the test's control: it says what the test has it say, down to the bytes, and keeps
//! what it was asked. For what a real server won't do on demand.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// A request as it came, its body unpacked.
#[derive(Clone, Debug)]
pub struct Request {
    pub at: Instant,
    /// Which connection it came on, from 0.
    pub connection: usize,
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(given, _)| given.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The lines of a bulk request's body: action, document, action, document.
    pub fn lines(&self) -> Vec<Value> {
        let text = std::str::from_utf8(&self.body).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The `_id` of each document of a bulk request, in order.
    pub fn ids(&self) -> Vec<String> {
        let id = |lines: &[Value]| lines[0]["create"]["_id"].as_str().unwrap().to_owned();
        self.lines().chunks(2).map(id).collect()
    }

    /// The documents of a bulk request, in order.
    pub fn documents(&self) -> Vec<Value> {
        self.lines().chunks(2).map(|lines| lines[1].clone()).collect()
    }
}

/// What to answer, and how.
#[derive(Clone, Debug)]
pub struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    how: How,
}

#[derive(Clone, Debug)]
enum How {
    Whole,
    Chunked,
    Slowly(Duration),
    Cut(usize),
    Endless,
    Close,
    Never,
}

impl Answer {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Answer {
        Answer { status, headers: Vec::new(), body: body.into(), how: How::Whole }
    }

    pub fn json(status: u16, body: &Value) -> Answer {
        Answer::new(status, body.to_string()).header("Content-Type", "application/json")
    }

    /// An honest answer to a bulk request, with this status for the item of this id.
    pub fn items(request: &Request, status: impl Fn(&str) -> u16) -> Answer {
        let ids = request.ids();
        let items: Vec<Value> = ids.iter().map(|id| item(id, status(id))).collect();
        let errors = ids.iter().any(|id| status(id) >= 300);
        Answer::json(200, &json!({ "took": 1, "errors": errors, "items": items }))
    }

    /// The honest answer of a server that takes all.
    pub fn created(request: &Request) -> Answer {
        Answer::items(request, |_| 201)
    }

    /// Closes the connection without a word.
    pub fn close() -> Answer {
        Answer { how: How::Close, ..Answer::new(200, "") }
    }

    /// Keeps the connection open and says nothing.
    pub fn never() -> Answer {
        Answer { how: How::Never, ..Answer::new(200, "") }
    }

    /// The body again and again for as long as the client reads, chunked.
    pub fn endless(self) -> Answer {
        Answer { how: How::Endless, ..self }
    }

    pub fn header(mut self, name: &str, value: &str) -> Answer {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Without a length, in chunks of a few bytes.
    pub fn chunked(self) -> Answer {
        Answer { how: How::Chunked, ..self }
    }

    /// Head and body byte by byte.
    pub fn slowly(self, every: Duration) -> Answer {
        Answer { how: How::Slowly(every), ..self }
    }

    /// Closes after so many bytes of the body, with the length of the whole in the head.
    pub fn cut(self, after: usize) -> Answer {
        Answer { how: How::Cut(after), ..self }
    }

    /// Whether the connection stays.
    fn give(&self, mut to: &TcpStream) -> std::io::Result<bool> {
        match self.how {
            How::Close => return Ok(false),
            How::Never => {
                // Until the client leaves or the server is dropped.
                std::io::copy(&mut to, &mut std::io::sink())?;
                return Ok(false);
            }
            How::Whole => to.write_all(&[self.head(false), self.body.clone()].concat())?,
            How::Cut(after) => {
                to.write_all(&[&self.head(false), &self.body[..after]].concat())?;
                return Ok(false);
            }
            How::Slowly(every) => {
                for byte in [self.head(false), self.body.clone()].concat() {
                    to.write_all(&[byte])?;
                    std::thread::sleep(every);
                }
            }
            How::Chunked => {
                to.write_all(&self.head(true))?;
                for chunk in self.body.chunks(7) {
                    write_chunk(to, chunk)?;
                }
                write_chunk(to, b"")?;
            }
            How::Endless => {
                to.write_all(&self.head(true))?;
                loop {
                    write_chunk(to, &self.body)?;
                }
            }
        }
        Ok(true)
    }

    fn head(&self, chunked: bool) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} Scripted\r\n", self.status);
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &match chunked {
            true => "Transfer-Encoding: chunked\r\n\r\n".to_owned(),
            false => format!("Content-Length: {}\r\n\r\n", self.body.len()),
        };
        head.into_bytes()
    }
}

fn write_chunk(mut to: &TcpStream, chunk: &[u8]) -> std::io::Result<()> {
    to.write_all(&[format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat())
}

/// What a real server says of one document. Its texts are of OpenSearch 2.
pub fn item(id: &str, status: u16) -> Value {
    let kind = match status {
        200..300 => {
            return json!({ "create": { "_index": "onset", "_id": id, "_version": 1, "result": "created", "status": status } });
        }
        409 => "version_conflict_engine_exception",
        400 => "mapper_parsing_exception",
        403 => "cluster_block_exception",
        413 => "circuit_breaking_exception",
        429 => "rejected_execution_exception",
        _ => "exception",
    };
    let error = json!({ "type": kind, "reason": format!("[{id}]: scripted") });
    json!({ "create": { "_index": "onset", "_id": id, "status": status, "error": error } })
}

type Script = dyn Fn(&Request, usize) -> Answer + Send + Sync;

#[derive(Default)]
struct Seen {
    requests: Vec<Request>,
    connections: Vec<TcpStream>,
    over: bool,
}

struct Shared {
    seen: Mutex<Seen>,
    more: Condvar,
}

/// A server that answers by a script. Leaves its port and all connections when it is dropped.
pub struct Fake {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Fake {
    /// `script` is given each request and how many came before it.
    pub fn start(script: impl Fn(&Request, usize) -> Answer + Send + Sync + 'static) -> Fake {
        Fake::start_at(([127, 0, 0, 1], crate::http::free_port()).into(), script)
    }

    /// The same on the address of one that is no more.
    pub fn start_at(
        address: SocketAddr,
        script: impl Fn(&Request, usize) -> Answer + Send + Sync + 'static,
    ) -> Fake {
        let listener = TcpListener::bind(address).unwrap();
        let shared = Arc::new(Shared { seen: Mutex::default(), more: Condvar::new() });
        let (inside, script): (_, Arc<Script>) = (shared.clone(), Arc::new(script));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                let number = {
                    let mut seen = inside.lock();
                    if seen.over {
                        break;
                    }
                    seen.connections.push(stream.try_clone().unwrap());
                    seen.connections.len() - 1
                };
                let (inside, script) = (inside.clone(), script.clone());
                std::thread::spawn(move || serve(stream, number, &inside, &*script));
            }
        });
        Fake { address, shared }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.lock().requests.clone()
    }

    /// How many connections there have been.
    pub fn connections(&self) -> usize {
        self.shared.lock().connections.len()
    }

    /// Waits until the requests so far are what is wanted, and gives them.
    pub fn wait(&self, what: &str, within: Duration, enough: impl Fn(&[Request]) -> bool) -> Vec<Request> {
        let end = Instant::now() + within;
        let mut seen = self.shared.lock();
        while !enough(&seen.requests) {
            let left = end.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "waited {within:?} for {what}; there were {} requests",
                seen.requests.len()
            );
            seen = self.shared.more.wait_timeout(seen, left).unwrap().0;
        }
        seen.requests.clone()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let mut seen = self.shared.lock();
        seen.over = true;
        for stream in &seen.connections {
            let _ = stream.shutdown(Shutdown::Both);
        }
        drop(seen);
        // The listener sees that it is over at its next connection.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn serve(stream: TcpStream, connection: usize, shared: &Shared, script: &Script) {
    let mut from = BufReader::new(&stream);
    while let Ok(Some(mut request)) = read(&mut from, &stream) {
        request.connection = connection;
        let before = {
            let mut seen = shared.lock();
            seen.requests.push(request.clone());
            shared.more.notify_all();
            seen.requests.len() - 1
        };
        match script(&request, before).give(&stream) {
            Ok(true) => {}
            Ok(false) | Err(_) => break,
        }
    }
    let _ = stream.shutdown(Shutdown::Both);
}

/// None at the end of the connection.
fn read(from: &mut BufReader<&TcpStream>, mut to: &TcpStream) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    if from.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut request =
        Request { at: Instant::now(), connection: 0, method, path, headers: Vec::new(), body: Vec::new() };
    loop {
        line.clear();
        from.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        request.headers.push((name.to_owned(), value.trim().to_owned()));
    }
    if request.header("Expect").is_some() {
        to.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    if request.header("Transfer-Encoding").is_some_and(|value| value.contains("chunked")) {
        loop {
            line.clear();
            from.read_line(&mut line)?;
            let len = usize::from_str_radix(line.trim(), 16).map_err(std::io::Error::other)?;
            let start = request.body.len();
            request.body.resize(start + len, 0);
            from.read_exact(&mut request.body[start..])?;
            line.clear();
            from.read_line(&mut line)?;
            if len == 0 {
                break;
            }
        }
    } else {
        let length = request.header("Content-Length").and_then(|text| text.parse().ok());
        request.body.resize(length.unwrap_or(0), 0);
        from.read_exact(&mut request.body)?;
    }
    if request.header("Content-Encoding") == Some("gzip") {
        let packed = std::mem::take(&mut request.body);
        flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut request.body)?;
    }
    Ok(Some(request))
}

//! A parser of HTTP request heads (RFC 9112). It checks line by line, so that the result is the same wherever the bytes
//! were split. Requests with a body are refused: no page takes one, and a body that is not read could smuggle another
//! request.

/// The longest head.
pub const REQUEST_MAX: usize = 16 << 10;

/// The result of parsing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// The beginning of a request; more is to come.
    Incomplete,
    /// A request.
    Request(Request<'a>),
    /// A bad request: the reply has this status, and the connection is closed.
    Bad(u16),
}

/// A request, which has no body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// The method.
    pub method: Method,
    /// The path as sent, without the query. With an unknown method it may be any text.
    pub path: &'a str,
    /// Whether the connection is to stay open.
    pub persistence: Persistence,
    /// Its length in bytes.
    pub len: usize,
}

/// The methods that a page knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// The page.
    Get,
    /// Its head.
    Head,
    /// No page here knows it.
    Other,
}

/// Whether the connection stays open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// It stays open, the default of HTTP/1.1.
    KeepAlive,
    /// It stays open because an HTTP/1.0 client asked for it; the reply has to confirm it.
    AskedKeepAlive,
    /// It is closed.
    Close,
}

/// Reads the first request in these bytes. Never asks for more once there are `REQUEST_MAX`.
#[must_use]
pub fn parse(data: &[u8]) -> Parsed<'_> {
    let data = data.get(..REQUEST_MAX).unwrap_or(data);
    match head(data) {
        Ok(Some(request)) => Parsed::Request(request),
        Ok(None) if data.len() == REQUEST_MAX => Parsed::Bad(431),
        Ok(None) => Parsed::Incomplete,
        Err(Bad(status)) => Parsed::Bad(status),
    }
}

struct Bad(u16);

const BAD: Bad = Bad(400);

fn head(data: &[u8]) -> Result<Option<Request<'_>>, Bad> {
    let mut lines = Lines(data);
    let first = loop {
        match lines.next()? {
            None => return Ok(None),
            Some([]) => {} // some clients send an empty line too many
            Some(line) => break line,
        }
    };
    let (method, path, version) = request_line(first)?;
    let mut fields = Fields::default();
    loop {
        match lines.next()? {
            None => return Ok(None),
            Some([]) => break,
            Some(line) => fields.add(line)?,
        }
    }
    let persistence = fields.persistence(method, version)?;
    let len = data.len().saturating_sub(lines.0.len());
    Ok(Some(Request { method, path, persistence, len }))
}

/// The lines of a head; what follows the last one taken.
struct Lines<'a>(&'a [u8]);

impl<'a> Lines<'a> {
    /// The next line without its end. `None` if it has not come whole.
    fn next(&mut self) -> Result<Option<&'a [u8]>, Bad> {
        let at = self.0.iter().position(|byte| *byte == b'\n');
        let (line, rest) = self.0.split_at(at.unwrap_or(self.0.len()));
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        // Looked at before the line is whole: what is no HTTP at all may never end a line.
        if line.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
            return Err(BAD);
        }
        if at.is_none() {
            return Ok(None);
        }
        self.0 = rest.get(1..).unwrap_or_default();
        Ok(Some(line))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    /// 1.0
    Old,
    /// 1.1, and those to come that are compatible with it.
    New,
}

fn request_line(line: &[u8]) -> Result<(Method, &str, Version), Bad> {
    let mut parts = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(BAD);
    };
    let version = match version {
        b"HTTP/1.0" => Version::Old,
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1'..=b'9'] => Version::New,
        _ => return Err(BAD),
    };
    if !is_token(method) || target.is_empty() || !target.iter().all(u8::is_ascii_graphic) {
        return Err(BAD);
    }
    let target = str::from_utf8(target).map_err(|_| BAD)?;
    Ok(match method {
        b"GET" => (Method::Get, path(target)?, version),
        b"HEAD" => (Method::Head, path(target)?, version),
        _ => (Method::Other, target, version),
    })
}

/// The path of a target, which is `/path?query` or `http://host/path?query`.
fn path(target: &str) -> Result<&str, Bad> {
    let is_http = |scheme: &str| scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    let target = match target.split_once("://") {
        Some((scheme, rest)) if is_http(scheme) => {
            let at = rest.find(['/', '?']).unwrap_or(rest.len());
            match rest.split_at(at) {
                ("", _) => return Err(BAD),
                (_, path) if path.starts_with('/') => path,
                _ => "/",
            }
        }
        _ => target,
    };
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    if path.starts_with('/') { Ok(path) } else { Err(BAD) }
}

/// What the header fields say that matters here.
#[derive(Default)]
struct Fields {
    hosts: u32,
    length: Option<u64>,
    encoded: bool,
    close: bool,
    keep: bool,
}

impl Fields {
    fn add(&mut self, line: &[u8]) -> Result<(), Bad> {
        let colon = line.iter().position(|byte| *byte == b':').ok_or(BAD)?;
        let (name, value) = line.split_at(colon);
        if !is_token(name) {
            return Err(BAD);
        }
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        if name.eq_ignore_ascii_case(b"host") {
            self.hosts = self.hosts.saturating_add(1);
        } else if name.eq_ignore_ascii_case(b"content-length") {
            let length = length(value).ok_or(BAD)?;
            if self.length.is_some_and(|other| other != length) {
                return Err(BAD);
            }
            self.length = Some(length);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.encoded = true;
        } else if name.eq_ignore_ascii_case(b"connection") {
            for word in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                self.close |= word.eq_ignore_ascii_case(b"close");
                self.keep |= word.eq_ignore_ascii_case(b"keep-alive");
            }
        }
        Ok(())
    }

    fn persistence(&self, method: Method, version: Version) -> Result<Persistence, Bad> {
        if self.hosts > 1 || (self.hosts == 0 && version == Version::New) {
            return Err(BAD);
        }
        let body = self.encoded || self.length.is_some_and(|length| length > 0);
        match method {
            Method::Other if body => return Err(Bad(405)),
            Method::Get | Method::Head if self.encoded => return Err(BAD),
            Method::Get | Method::Head if body => return Err(Bad(413)),
            _ => {}
        }
        Ok(match version {
            _ if self.close => Persistence::Close,
            Version::New => Persistence::KeepAlive,
            Version::Old if self.keep => Persistence::AskedKeepAlive,
            Version::Old => Persistence::Close,
        })
    }
}

fn length(value: &[u8]) -> Option<u64> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    digits.then(|| str::from_utf8(value).ok()?.parse().ok())?
}

/// RFC 9110, 5.6.2.
fn is_token(text: &[u8]) -> bool {
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !text.is_empty() && text.iter().all(fits)
}

#[cfg(test)]
mod tests;

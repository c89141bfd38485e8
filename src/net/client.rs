//! The HTTP client: ureq, configured once. TLS is always verified, by the system's roots or those of a file; no proxy,
//! no redirect; replies and waits are bounded. It blocks, so it is for helper threads only.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ureq::http;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

/// Where distributions keep the system's roots, as one file in PEM: Debian and Alpine, Red Hat,
/// SUSE, OpenSSL's own name.
const SYSTEM_ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// A longer file holds no certificates.
const PEM_MAX: u64 = 16 << 20;

/// A connection that was not used for this long is not used again: servers close theirs about then.
const IDLE_MAX: Duration = Duration::from_secs(50);

/// The CAs to trust, and our own certificate.
#[derive(Clone, Copy, Debug, Default)]
pub struct TlsTrust<'a> {
    /// CAs in PEM; `None`: the system's.
    pub ca_file: Option<&'a Path>,
    /// Our certificate and its key, both in PEM.
    pub identity: Option<(&'a Path, &'a Path)>,
}

/// How long a server may take.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// For a connection, TLS included.
    pub connect: Duration,
    /// For one request, from the connection to the last byte of its reply.
    pub total: Duration,
}

/// What keeps a client from being set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of certificates or keys.
    #[error("cannot read {}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// The kernel's word.
        source: io::Error,
    },
    /// It holds something else.
    #[error("{} holds no {what} in PEM", path.display())]
    NotPem {
        /// Which.
        path: PathBuf,
        /// What should be in it.
        what: &'static str,
    },
    /// No file of the system's has any.
    #[error("this system has no file of root certificates (looked for {}); set ca_file", SYSTEM_ROOTS.join(", "))]
    NoRoots,
}

/// Why there is no reply.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The reply is longer than any that is believed.
    #[error("its reply is longer than {0} bytes")]
    TooLong(usize),
    /// No connection, or not to the end.
    #[error("{}", words(.0))]
    Failed(ureq::Error),
}

/// A reply, without its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Its status.
    pub status: u16,
    /// Its `Retry-After`, as it stands there.
    pub retry_after: Option<String>,
}

/// One request.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// GET, POST, PUT.
    pub method: &'a str,
    /// Where to.
    pub url: &'a str,
    /// Beside `Host`, `User-Agent` and what belongs to the body's length.
    pub headers: &'a [(&'a str, &'a str)],
    /// Sent where the method has one.
    pub body: &'a [u8],
}

/// A client for one server; keeps its connection open between requests.
#[derive(Debug)]
pub struct Client {
    agent: ureq::Agent,
}

impl Client {
    /// Reads the certificates that `url` calls for.
    pub fn new(url: &str, trust: TlsTrust<'_>, patience: Timeouts) -> Result<Client, Error> {
        let mut config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .max_redirects(0)
            .user_agent(concat!("onset/", env!("CARGO_PKG_VERSION")))
            .max_idle_connections(1)
            .max_idle_age(IDLE_MAX)
            .timeout_connect(Some(patience.connect))
            .timeout_global(Some(patience.total));
        if url.starts_with("https://") {
            config = config.https_only(true).tls_config(tls(trust)?);
        }
        Ok(Client { agent: config.build().into() })
    }

    /// Asks, and puts the reply's body, of at most `limit` bytes, into `reply`.
    pub fn send(
        &self,
        request: Request<'_>,
        reply: &mut Vec<u8>,
        limit: usize,
    ) -> Result<Reply, RequestError> {
        reply.clear();
        let (head, read) = self.read(request, limit, |head, body| {
            let read = body.read_to_end(reply);
            (head.clone(), read)
        })?;
        read.map_err(|error| RequestError::Failed(ureq::Error::Io(error)))?;
        Ok(head)
    }

    /// Asks, and has the reply's body, of at most `limit` bytes, read as it comes.
    pub fn read<T>(
        &self,
        request: Request<'_>,
        limit: usize,
        read: impl FnOnce(&Reply, &mut dyn io::Read) -> T,
    ) -> Result<T, RequestError> {
        let mut asked = http::Request::builder().method(request.method).uri(request.url);
        for (name, value) in request.headers {
            asked = asked.header(*name, *value);
        }
        let made = |error: http::Error| RequestError::Failed(ureq::Error::Http(error));
        let answered = if matches!(request.method, "GET" | "HEAD" | "DELETE") {
            self.agent.run(asked.body(()).map_err(made)?)
        } else {
            self.agent.run(asked.body(request.body).map_err(made)?)
        };
        let mut answered = answered.map_err(RequestError::Failed)?;
        let retry_after = answered.headers().get("retry-after").and_then(|value| value.to_str().ok());
        let head = Reply { status: answered.status().as_u16(), retry_after: retry_after.map(str::to_owned) };
        let mut body = answered.body_mut().with_config().limit(u64::MAX).reader().take(limit as u64 + 1);
        let result = read(&head, &mut body);
        if body.limit() == 0 {
            return Err(RequestError::TooLong(limit));
        }
        Ok(result)
    }
}

fn tls(trust: TlsTrust<'_>) -> Result<TlsConfig, Error> {
    let roots = match trust.ca_file {
        Some(path) => certificates(path)?,
        None => system_roots()?,
    };
    let identity = match trust.identity {
        Some((certificate, key)) => {
            Some(ClientCert::new_with_certs(&certificates(certificate)?, private_key(key)?))
        }
        None => None,
    };
    let config = TlsConfig::builder()
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .root_certs(RootCerts::Specific(Arc::new(roots)))
        .client_cert(identity);
    Ok(config.build())
}

fn system_roots() -> Result<Vec<Certificate<'static>>, Error> {
    let there = SYSTEM_ROOTS.iter().map(Path::new).find(|path| path.exists());
    certificates(there.ok_or(Error::NoRoots)?)
}

/// A small file, whole.
fn file(path: &Path) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(PEM_MAX).read_to_end(&mut bytes))
        .map_err(|source| Error::File { path: path.to_owned(), source })?;
    Ok(bytes)
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>, Error> {
    let bytes = file(path)?;
    let certificate = |item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    };
    let found: Vec<_> = parse_pem(&bytes).filter_map(certificate).collect();
    if found.is_empty() {
        return Err(Error::NotPem { path: path.to_owned(), what: "certificate" });
    }
    Ok(found)
}

fn private_key(path: &Path) -> Result<PrivateKey<'static>, Error> {
    PrivateKey::from_pem(&file(path)?)
        .map_err(|_| Error::NotPem { path: path.to_owned(), what: "private key" })
}

/// What went wrong, for a person, with its remedy where there is one. Names no secret.
fn words(error: &ureq::Error) -> String {
    let plain = error.to_string();
    for (part, meaning) in [
        ("UnknownIssuer", "its certificate is not of a CA that is trusted here; set ca_file to its CA's"),
        ("NotValidForName", "its certificate is for another name; use the name that the certificate has"),
        ("certificate not valid for name", "its certificate is for another name than the url's"),
        ("Expired", "its certificate has expired"),
        ("NotValidYet", "its certificate is not valid yet; is this host's clock right?"),
        ("CertificateRequired", "it wants a client's certificate"),
    ] {
        if plain.contains(part) {
            return format!("{meaning} ({plain})");
        }
    }
    match error {
        ureq::Error::HostNotFound => "its name is not known to the resolver".to_owned(),
        ureq::Error::Timeout(_) => format!("it took too long ({plain})"),
        _ => plain,
    }
}

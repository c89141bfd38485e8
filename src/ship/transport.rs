//! The transport that is not a test's: the server through ureq, news from the loop over its link, the
//! clocks. The secrets are read again whenever the server did not like them.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::settings::{Authorization, Error, Settings};
use super::shipper::{Transport, Wakeup};
use crate::clock::Now;
use crate::net::client::{Client, Reply, Request};
use crate::output::{self, Link};
use crate::sys;

/// What fits one packet gains nothing by gzip.
const GZIP_MIN: usize = 1400;

/// Only what is looked at: the reply is a twentieth of the request then.
const FILTER: &str = "filter_path=items.*._id,items.*.status,items.*.error.type,items.*.error.reason,items.*.error.caused_by.reason,error,status";

/// The server, as it is connected now.
struct Server {
    client: Client,
    authorization: Option<Authorization>,
}

/// The server over HTTP, and the loop over its link.
pub(super) struct HttpTransport {
    link: Arc<Link<Settings>>,
    settings: Settings,
    /// Where bulk requests go.
    url: String,
    server: Option<Server>,
}

impl HttpTransport {
    pub(super) fn new(link: Arc<Link<Settings>>, settings: Settings) -> HttpTransport {
        let mut transport = HttpTransport { link, url: String::new(), settings, server: None };
        transport.aim();
        transport
    }

    fn aim(&mut self) {
        self.url = format!("{}/{}/_bulk?{FILTER}", self.settings.url(), self.settings.index());
        self.server = None; // the secrets and the CA are read again
    }

    fn server(&mut self) -> Result<&Server, Error> {
        let server = match self.server.take() {
            Some(server) => server,
            None => Server { client: self.settings.client()?, authorization: self.settings.authorization()? },
        };
        Ok(self.server.insert(server))
    }

    fn packed(&self, body: &[u8]) -> Option<Vec<u8>> {
        if !self.settings.compress() || body.len() < GZIP_MIN {
            return None;
        }
        let mut packer = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
        packer.write_all(body).and_then(|()| packer.finish()).ok()
    }
}

impl Transport for HttpTransport {
    fn now(&self) -> Now {
        sys::now()
    }

    fn wait(&mut self, until: Option<Duration>) -> Wakeup {
        let output::Wakeup { records, settings, leave } = self.link.wait(until);
        let batch_settings = settings.map(|settings| {
            self.settings = settings;
            self.aim();
            self.settings.batch_settings
        });
        Wakeup { records, batch_settings, leave }
    }

    fn post(&mut self, body: &[u8], reply: &mut Vec<u8>, limit: usize) -> Result<Reply, String> {
        let packed = self.packed(body);
        let url = std::mem::take(&mut self.url);
        let answered = self.server().map_err(|error| error.to_string()).and_then(|server| {
            let mut headers = vec![("content-type", "application/x-ndjson"), ("accept", "application/json")];
            if packed.is_some() {
                headers.push(("content-encoding", "gzip"));
            }
            headers.extend(server.authorization.as_ref().map(|auth| ("authorization", auth.header())));
            let body = packed.as_deref().unwrap_or(body);
            let request = Request { method: "POST", url: &url, headers: &headers, body };
            server.client.send(request, reply, limit).map_err(|error| error.to_string())
        });
        self.url = url;
        if answered.as_ref().is_ok_and(|reply| matches!(reply.status, 401 | 403)) {
            self.server = None;
        }
        answered
    }

    fn name(&self) -> &str {
        self.settings.url()
    }

    fn say(&mut self, line: &str) {
        eprintln!("onset: {line}");
    }
}

//! The transport that is not a test's: the server through ureq, news from the loop through a mutex, the
//! clocks. The secrets are read again whenever the server did not like them.

use std::io::Write as _;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::settings::{Authorization, Error, Settings};
use super::shipper::{News, Transport};
use crate::clock::Now;
use crate::net::client::{Client, Reply, Request};
use crate::sys;

/// What fits one packet gains nothing by gzip.
const GZIP_MIN: usize = 1400;

/// Only what is looked at: the reply is a twentieth of the request then.
const FILTER: &str = "filter_path=items.*._id,items.*.status,items.*.error.type,items.*.error.reason,items.*.error.caused_by.reason,error,status";

/// What the loop tells the thread, and the thread the loop.
#[derive(Debug, Default)]
pub(super) struct Link {
    state: Mutex<State>,
    news: Condvar,
    gone: Condvar,
}

#[derive(Debug, Default)]
struct State {
    records: bool,
    leave: bool,
    settings: Option<Settings>,
    gone: bool,
}

impl Link {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There are records.
    pub(super) fn records(&self) {
        let mut state = self.state();
        if !std::mem::replace(&mut state.records, true) {
            drop(state);
            self.news.notify_one();
        }
    }

    /// The config was read again.
    pub(super) fn configure(&self, settings: Settings) {
        self.state().settings = Some(settings);
        self.news.notify_one();
    }

    /// It is to send once more what is there, and end.
    pub(super) fn leave(&self) {
        self.state().leave = true;
        self.news.notify_one();
    }

    /// Waits until the thread is gone, but not for longer. Returns whether it is.
    pub(super) fn wait_gone(&self, patience: Duration) -> bool {
        let waited = self.gone.wait_timeout_while(self.state(), patience, |state| !state.gone);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.gone
    }

    /// Whether the thread has ended.
    pub(super) fn is_gone(&self) -> bool {
        self.state().gone
    }

    /// Waits for so long; returns whether it is to end.
    pub(super) fn pause(&self, pause: Duration) -> bool {
        let waited = self.news.wait_timeout_while(self.state(), pause, |state| {
            let off = state.settings.as_ref().is_some_and(|settings| !settings.is_on());
            !state.leave && !off
        });
        let (_state, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        !waited.timed_out()
    }

    /// The thread ends, unless it was configured anew meanwhile: then it goes on with that.
    pub(super) fn goes(&self) -> Option<Settings> {
        let mut state = self.state();
        let leave = state.leave;
        let next = state.settings.take().filter(|settings| settings.is_on() && !leave);
        state.gone = next.is_none();
        self.gone.notify_all();
        next
    }
}

/// The server, as it is connected now.
struct Server {
    client: Client,
    authorization: Option<Authorization>,
}

/// The server over HTTP, and the loop over its link.
pub(super) struct HttpTransport {
    link: Arc<Link>,
    settings: Settings,
    /// Where bulk requests go.
    url: String,
    server: Option<Server>,
}

impl HttpTransport {
    pub(super) fn new(link: Arc<Link>, settings: Settings) -> HttpTransport {
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

    fn wait(&mut self, until: Option<Duration>) -> News {
        let link = self.link.clone();
        let mut state = link.state();
        loop {
            let settings = state.settings.take();
            let records = std::mem::take(&mut state.records);
            if settings.is_some() || state.leave || records {
                let off = settings.as_ref().is_some_and(|settings| !settings.is_on());
                let leave = state.leave || off;
                drop(state);
                let terms = settings.filter(|_| !off).map(|settings| {
                    self.settings = settings;
                    self.aim();
                    self.settings.terms
                });
                return News { records, terms, leave };
            }
            state = match until.map(|at| at.saturating_sub(sys::now().mono)) {
                Some(Duration::ZERO) => return News::default(),
                Some(left) => link.news.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
                None => link.news.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
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

//! What the kubelet's list of pods tells. It is asked when a container appears, and not before ten
//! seconds are over since it was last asked; one that fails is told of once and asked less often.

use std::io;
use std::path::PathBuf;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{NameRequest, Shared, runtimes};
use crate::config::Kubelet;
use crate::host::identity::pods::{self, PodOrContainer};
use crate::host::{Identity, NameReport, NameSource, Role};
use crate::net::client::{self, Client, Request, Timeouts, TlsTrust};
use crate::work_queue::{Next, WorkerGuard};

/// The kubelet makes the list anew each time: it is not asked more often.
const EVERY: Duration = Duration::from_secs(10);

/// One that fails is asked as seldom.
const EVERY_FAILING: Duration = Duration::from_secs(60);

/// Failures in a row after which that is so.
const FAILING: u32 = 3;

/// How long the others are waited for: containers of a pod come together.
const GATHER: Duration = Duration::from_millis(500);

/// The lists that a container is looked for in: the kubelet tells of it some seconds after it began. A container
/// that none of them has is not the kubelet's, or is a sandbox whose runtime does not say so.
const LISTS: u32 = 6;

/// A list of 500 pods is of 5 MiB.
const LIST_MAX: usize = 64 << 20;

const PATIENCE: Timeouts = Timeouts { connect: Duration::from_secs(3), total: Duration::from_secs(10) };

/// Why there is no list of pods.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The token.
    #[error("cannot read {}: {source}; [containers] kubelet_token_file must name a file with a token", path.display())]
    Token {
        /// Its file.
        path: PathBuf,
        /// The kernel's word.
        source: io::Error,
    },
    /// Certificates or keys.
    #[error("{0}; see [containers] kubelet_ca_file, kubelet_cert_file and kubelet_key_file")]
    Client(#[from] client::Error),
    /// No connection, or not to the end.
    #[error("{0}")]
    RequestError(#[from] client::RequestError),
    /// It does not know us.
    #[error(
        "it answers 401: the token or certificate is not valid for it; see [containers] kubelet_token_file"
    )]
    Unknown,
    /// It knows us, and refuses.
    #[error("it answers 403: whose token this is must be allowed to get nodes/proxy")]
    Forbidden,
    /// It answers something else.
    #[error("it answers {0} and no list of pods; is [containers] kubelet the kubelet's url?")]
    Status(u16),
    /// What it answers with 200 is something else.
    #[error("{0}; is [containers] kubelet the kubelet's url?")]
    NoList(#[from] pods::Error),
}

/// How the kubelet is, from one thread to the next.
#[derive(Debug, Default)]
pub(super) struct KubeletState {
    asked: Option<Instant>,
    failures: u32,
    said: Option<std::mem::Discriminant<Error>>,
}

/// What one list told of a container.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Listed {
    /// Of itself.
    own: Option<Identity>,
    /// Of its pod.
    pod: Option<Identity>,
}

impl Listed {
    pub(super) fn report(self) -> Option<NameReport> {
        Some(by_kubelet(self.own.or(self.pod)?))
    }
}

fn by_kubelet(identity: Identity) -> NameReport {
    NameReport { identity, by: NameSource::Kubelet }
}

/// A thread's life: until each container that waits was in a list, or in enough of them not.
pub(super) fn work(shared: &Shared, jobs: &mut WorkerGuard<'_, NameRequest>) {
    let Some(source) = &shared.names.kubelet else { return };
    let mut waiting: Vec<(NameRequest, u32)> = Vec::new();
    let mut due = Instant::now() + GATHER;
    loop {
        match jobs.next(due.saturating_duration_since(Instant::now())) {
            Next::Closed => return,
            Next::Job(request) => {
                if waiting.is_empty() {
                    due = (Instant::now() + GATHER).max(shared.next_list());
                }
                waiting.push((request, 0));
            }
            Next::Nothing if waiting.is_empty() => {
                if jobs.leave() {
                    return;
                }
            }
            Next::Nothing => {
                if !shared.ask(source, &mut waiting) {
                    return;
                }
                due = if waiting.is_empty() { Instant::now() } else { shared.next_list() };
            }
        }
    }
}

impl Shared {
    fn kubelet_state(&self) -> std::sync::MutexGuard<'_, KubeletState> {
        self.kubelet_state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the kubelet may be asked again.
    fn next_list(&self) -> Instant {
        let kubelet_state = self.kubelet_state();
        let every = if kubelet_state.failures < FAILING { EVERY } else { EVERY_FAILING };
        kubelet_state.asked.map_or_else(Instant::now, |asked| asked + every)
    }

    /// Asks once for all that wait. False: nobody wants to know any more.
    fn ask(&self, source: &Kubelet, waiting: &mut Vec<(NameRequest, u32)>) -> bool {
        let requests: Vec<NameRequest> = waiting.iter().map(|(request, _)| *request).collect();
        let answer = pods(source, &requests);
        self.stands(source, answer.as_ref().err());
        let Ok(report) = answer else { return true };
        let mut report = report.into_iter();
        let mut heard = true;
        waiting.retain_mut(|(request, lists)| {
            let report = report.next().unwrap_or_default();
            // What its pod is called is told once: the next lists know no more of that.
            let news = report.own.or(report.pod.filter(|_| *lists == 0));
            if let Some(identity) = news {
                heard &= self.tell(request.key, by_kubelet(identity));
            }
            *lists += 1;
            report.own.is_none() && *lists < LISTS && !self.is_sandbox(request)
        });
        heard
    }

    /// Whether its runtime says that it is a sandbox: no list has those.
    fn is_sandbox(&self, request: &NameRequest) -> bool {
        let report = runtimes::find(&self.names, &request.id, false);
        report.is_some_and(|report| report.identity.role == Some(Role::Sandbox))
    }

    /// Notes how it went, and says so when that changed.
    fn stands(&self, source: &Kubelet, error: Option<&Error>) {
        let mut kubelet_state = self.kubelet_state();
        kubelet_state.asked = Some(Instant::now());
        let Some(error) = error else {
            kubelet_state.failures = 0;
            if kubelet_state.said.take().is_some() {
                eprintln!("onset: the kubelet tells names again");
            }
            return;
        };
        self.kubelet_failures.fetch_add(1, Ordering::Relaxed);
        kubelet_state.failures = kubelet_state.failures.saturating_add(1);
        let kind = std::mem::discriminant(error);
        if kubelet_state.said.replace(kind) != Some(kind) {
            eprintln!(
                "onset: no names from the kubelet ({}): {error}; asked again while they are missing",
                source.url
            );
        }
    }
}

/// Asks for the list of pods, and says for each of these what is in it.
pub(super) fn pods(source: &Kubelet, requests: &[NameRequest]) -> Result<Vec<Listed>, Error> {
    let identity = source.identity.as_ref().map(|(cert, key)| (cert.as_path(), key.as_path()));
    let trust = TlsTrust { ca_file: source.ca_file.as_deref(), identity };
    let client = Client::new(&source.url, trust, PATIENCE)?;
    let bearer = match &source.token_file {
        Some(path) => {
            let token = std::fs::read_to_string(path);
            let token = token.map_err(|source| Error::Token { path: path.clone(), source })?;
            Some(format!("Bearer {}", token.trim()))
        }
        None => None,
    };
    let headers: Vec<_> = bearer.iter().map(|bearer| ("Authorization", bearer.as_str())).collect();
    let request = Request { method: "GET", url: &source.url, headers: &headers, body: &[] };
    let mut report = vec![Listed::default(); requests.len()];
    client.read(request, LIST_MAX, |reply, body| match reply.status {
        200 => Ok(pods::read(io::BufReader::new(body), &mut |whose, identity| {
            for (wanted, report) in requests.iter().zip(&mut report) {
                match whose {
                    PodOrContainer::Container(id) if id == &*wanted.id => report.own = Some(*identity),
                    PodOrContainer::Pod(uid) if uid == &*wanted.pod_uid => report.pod = Some(*identity),
                    PodOrContainer::Container(_) | PodOrContainer::Pod(_) => {}
                }
            }
        })?),
        401 => Err(Error::Unknown),
        403 => Err(Error::Forbidden),
        status => Err(Error::Status(status)),
    })??;
    Ok(report)
}

//! An output's thread, which runs while the config enables the output. It may block.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::Builder;
use std::time::Duration;

use super::{Link, Output, OutputState, OutputStats, Position};
use crate::config::Config;
use crate::log::Progress;

/// A client with TLS and the reader of the log; it counts against no budget until it is used.
const STACK: usize = 512 << 10;

/// Where the log's folder cannot be read or written, it is tried again after this.
const OPEN_AGAIN: Duration = Duration::from_secs(10);

/// Where records go: what differs from output to output.
pub trait Sink: 'static {
    /// The settings in the config.
    type Settings: Send + 'static;

    /// The settings in `config`; `None`: the output is off.
    fn settings(config: &Config) -> Option<Self::Settings>;

    /// Where records go, for a person.
    fn target(settings: &Self::Settings) -> String;

    /// Takes the records after `position` until `link` says that it is to leave; then once more what is there. Has its
    /// own thread, and may block.
    fn run(settings: Self::Settings, link: &Arc<Link<Self::Settings>>, position: Position);
}

/// The loop's end of an output that has a thread.
#[derive(Debug)]
pub struct OutputThread<S: Sink> {
    dir: PathBuf,
    progress: Arc<Progress>,
    stats: Arc<OutputStats>,
    target: String,
    link: Option<Arc<Link<S::Settings>>>,
}

impl<S: Sink> OutputThread<S> {
    /// For the log in this folder. Takes nothing before it is configured.
    #[must_use]
    pub fn start(dir: &Path, progress: Arc<Progress>) -> Box<dyn Output> {
        let stats = Arc::new(OutputStats::default());
        Box::new(OutputThread::<S> {
            dir: dir.to_owned(),
            progress,
            stats,
            target: String::new(),
            link: None,
        })
    }

    fn spawn(&self, settings: S::Settings) -> io::Result<Arc<Link<S::Settings>>> {
        let link = Arc::new(Link::default());
        let (theirs, dir) = (link.clone(), self.dir.clone());
        let (progress, stats) = (self.progress.clone(), self.stats.clone());
        let body = move || {
            let mut next = Some(settings);
            while let Some(settings) = next {
                if let Some(position) = open(&dir, &progress, &theirs, &stats) {
                    S::run(settings, &theirs, position);
                }
                progress.end();
                stats.change(OutputState::Off, "");
                next = theirs.next();
            }
        };
        Builder::new().name(format!("ship-{}", self.progress.name())).stack_size(STACK).spawn(body)?;
        Ok(link)
    }
}

impl<S: Sink> Output for OutputThread<S> {
    fn configure(&mut self, config: &Config) -> io::Result<()> {
        let mut settings = S::settings(config);
        self.target = settings.as_ref().map(S::target).unwrap_or_default();
        if let Some(link) = self.link.take() {
            match link.configure(settings) {
                Ok(()) => {
                    self.link = Some(link); // where it is off now the thread ends by itself
                    return Ok(());
                }
                Err(unheard) => settings = unheard,
            }
        }
        if let Some(settings) = settings {
            self.link = Some(self.spawn(settings)?);
        }
        Ok(())
    }

    fn wake(&self) {
        if let Some(link) = &self.link {
            link.records();
        }
    }

    fn leave(&self) {
        if let Some(link) = &self.link {
            link.leave();
        }
    }

    fn wait_gone(&mut self, patience: Duration) {
        if let Some(link) = self.link.take() {
            link.wait_gone(patience);
        }
    }

    fn target(&self) -> &str {
        &self.target
    }

    fn stats(&self) -> &OutputStats {
        &self.stats
    }

    fn progress(&self) -> &Progress {
        &self.progress
    }
}

/// Opens the output's position in the log; where that fails, as on a full disk, again and again. `None`: it is
/// to end.
fn open<S>(
    dir: &Path,
    progress: &Arc<Progress>,
    link: &Link<S>,
    stats: &Arc<OutputStats>,
) -> Option<Position> {
    loop {
        match Position::open(dir, progress, stats) {
            Ok(position) => {
                stats.change(OutputState::Shipping, "");
                return Some(position);
            }
            Err(error) => {
                let words = format!("cannot note how far the log is shipped: {error}");
                if stats.change(OutputState::Waiting, &words) {
                    eprintln!("onset: {words}; it is tried again, and nothing is shipped until then");
                }
            }
        }
        if link.pause(OPEN_AGAIN) {
            return None;
        }
    }
}

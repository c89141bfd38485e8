//! The output that docs/how-to-add-an-output.md makes: every event as a line of a file. One that was written
//! when the power failed may come twice, never less than once.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::config::Config;
use crate::output::{Link, OutputSpec, OutputState, OutputThread, Position, Sink};
use crate::sys;

/// The output.
pub const OUTPUT: OutputSpec = OutputSpec { name: "copies", start: OutputThread::<Copies>::start };

/// A disk that was full is tried again after this.
const AGAIN: Duration = Duration::from_secs(10);

#[derive(Debug)]
enum Copies {}

impl Sink for Copies {
    type Settings = PathBuf;

    fn settings(config: &Config) -> Option<PathBuf> {
        Some(config.log.dir.with_extension("ndjson"))
    }

    fn target(file: &PathBuf) -> String {
        file.display().to_string()
    }

    fn run(mut file: PathBuf, link: &Arc<Link<PathBuf>>, mut position: Position) {
        let mut leaving = false;
        loop {
            let copied = copy(&file, &mut position);
            match &copied {
                Ok(()) => position.stats().change(OutputState::Shipping, ""),
                Err(words) => position.stats().change(OutputState::Waiting, words),
            };
            if leaving {
                return position.sync();
            }
            let again = copied.is_err().then(|| sys::now().mono.saturating_add(AGAIN));
            let news = link.wait(again);
            file = news.settings.unwrap_or(file);
            leaving = news.leave;
        }
    }
}

/// Appends all that is there. A line that was torn is cut off before the next try.
fn copy(path: &Path, position: &mut Position) -> Result<(), String> {
    let failed = |error: io::Error| format!("cannot write {}: {error}", path.display());
    let mut file = OpenOptions::new().create(true).append(true).open(path).map_err(failed)?;
    let mut reader = position.reader(position.done()).map_err(|error| error.to_string())?;
    while let Some(record) = reader.next().map_err(|error| error.to_string())? {
        append(&mut file, record.bytes).map_err(failed)?;
        position.stats().created.fetch_add(1, Ordering::Relaxed);
        position.advance(record.id);
    }
    Ok(())
}

fn append(file: &mut File, line: &[u8]) -> io::Result<()> {
    let whole = file.metadata()?.len();
    let written = file.write_all(&[line, b"\n"].concat());
    if written.is_err() {
        file.set_len(whole)?;
    }
    written
}

//! A runtime's file, opened in such a way that whoever may write its folder can neither hold the reader up
//! nor pass another's file off as the runtime's.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

/// The longest file of a runtime that is read: a spec is of some 20 KiB, podman's list of 2 KiB a container.
const FILE_MAX: u64 = 16 << 20;

/// The owner of a directory that anyone may write: no user has this id.
const ANYONE: u32 = u32::MAX;

/// An open file.
pub(super) struct Opened {
    file: File,
    pub(super) about: Metadata,
    /// Who may have put it there: the first user but root who may write a folder on the way to it; else
    /// whose it is.
    pub(super) owner: u32,
}

/// Opens the file at `path`, which is below a folder that the configuration names: `base`. `None`: it is not
/// there, or not for us, or no regular file, or too long; or a symlink is on the way from the base.
pub(super) fn open(base: &Path, path: &Path) -> Option<Opened> {
    // Whoever owns a folder above, or a link there, may put another in the base's place.
    let mut above = base.ancestors().filter_map(|folder| Some(fs::symlink_metadata(folder).ok()?.uid()));
    let mut owner = writer(&fs::metadata(base).ok()?);
    owner = if owner == 0 { above.find(|owner| *owner != 0).unwrap_or(0) } else { owner };
    let mut folder = base.to_owned();
    for part in path.strip_prefix(base).ok()?.parent()?.components() {
        folder.push(part);
        let about = fs::symlink_metadata(&folder).ok().filter(Metadata::is_dir)?;
        owner = if owner == 0 { writer(&about) } else { owner };
    }
    // A FIFO that nobody writes would be waited for.
    let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
    let about = file.metadata().ok().filter(|about| about.is_file() && about.len() <= FILE_MAX)?;
    owner = if owner == 0 { about.uid() } else { owner };
    Some(Opened { file, about, owner })
}

/// Who may write a folder.
fn writer(about: &Metadata) -> u32 {
    if about.mode() & 0o002 != 0 { ANYONE } else { about.uid() }
}

impl Opened {
    /// All of it. `None`: it cannot be read, or grew too long.
    pub(super) fn bytes(&self) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(usize::try_from(self.about.len()).ok()?);
        (&self.file).take(FILE_MAX + 1).read_to_end(&mut bytes).ok()?;
        (bytes.len() as u64 <= FILE_MAX).then_some(bytes)
    }
}

//! The socket's file. It is made in a folder of its own that only we can enter, and moved to its
//! place once its mode is right: at no moment could anyone else connect, whatever the umask.

use std::fs::{self, DirBuilder, Metadata, Permissions};
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::{Path, PathBuf};

use mio::net::{UnixListener, UnixStream};

use super::Error;
use crate::takeover;

/// A socket's file, removed when this goes.
#[derive(Debug)]
pub(super) struct Socket {
    path: PathBuf,
    /// Device and inode: another agent may have put its own in this place.
    identity: (u64, u64),
}

impl Socket {
    /// Listens on `path`, unless another agent does; waits for one that is exiting. The file is for us alone, or for
    /// `group` too.
    pub(super) fn bind(path: &Path, group: Option<(&str, u32)>) -> Result<(UnixListener, Socket), Error> {
        takeover::take(|error| matches!(error, Error::Live(_)), || Socket::replace(path, group))
    }

    /// Listens on `path` where no agent does.
    fn replace(path: &Path, group: Option<(&str, u32)>) -> Result<(UnixListener, Socket), Error> {
        let fail = |error: io::Error| match error.kind() {
            io::ErrorKind::InvalidInput => Error::TooLong(path.to_owned()),
            _ => Error::Make(path.to_owned(), error),
        };
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(fail(error)),
            Ok(metadata) if !metadata.file_type().is_socket() => {
                return Err(Error::NotSocket(path.to_owned()));
            }
            Ok(_) => match UnixStream::connect(path) {
                Err(error) if is_dead(&error) => {}
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(fail(error)),
                // One that hangs has no room for another caller, but lives.
                Err(_) => return Err(Error::Live(path.to_owned())),
                Ok(stream) => {
                    await_end(stream);
                    return Err(Error::Live(path.to_owned()));
                }
            },
        }
        let (listener, metadata) =
            make(path, group.map(|(_, number)| number)).map_err(|error| match (error.kind(), group) {
                (io::ErrorKind::PermissionDenied, Some((name, _))) => {
                    Error::Give(path.to_owned(), name.to_owned(), error)
                }
                _ => fail(error),
            })?;
        let identity = identity(&metadata);
        Ok((UnixListener::from_std(listener), Socket { path: path.to_owned(), identity }))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|found| identity(&found) == self.identity) {
            // One that stays behind is found dead and replaced by the next agent.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Waits until the agent on the other end of `stream` has exited, says something, or has had the time to exit.
fn await_end(stream: UnixStream) {
    let mut stream = StdStream::from(OwnedFd::from(stream));
    // Where this fails the next attempt comes sooner.
    let _ = stream.set_nonblocking(false).and_then(|()| stream.set_read_timeout(Some(takeover::EXIT)));
    let _ = stream.read(&mut [0]);
}

fn is_dead(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound)
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

fn make(path: &Path, group: Option<u32>) -> io::Result<(StdListener, Metadata)> {
    let mut folder = path.as_os_str().to_owned();
    folder.push(".new");
    let folder = PathBuf::from(folder);
    let inside = folder.join("s");
    let clear = || {
        // What an agent that was killed at this very moment left behind, or nothing.
        let _ = fs::remove_file(&inside);
        let _ = fs::remove_dir(&folder);
    };
    clear();
    DirBuilder::new().mode(0o700).create(&folder)?;
    let made = listen(&inside, group).and_then(|made| fs::rename(&inside, path).map(|()| made));
    clear();
    made
}

fn listen(path: &Path, group: Option<u32>) -> io::Result<(StdListener, Metadata)> {
    let listener = StdListener::bind(path)?;
    listener.set_nonblocking(true)?;
    if group.is_some() {
        chown(path, None, group)?;
    }
    fs::set_permissions(path, Permissions::from_mode(if group.is_some() { 0o660 } else { 0o600 }))?;
    Ok((listener, fs::symlink_metadata(path)?))
}

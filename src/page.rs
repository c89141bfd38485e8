//! Pages: bytes of a fixed size, set aside once. What does not fit is refused, so a page never
//! allocates again, and memory that was never written costs nothing.

use std::fmt;
use std::io::{self, Read, Write};
use std::ops::Deref;

use crate::sys;

/// A buffer that never grows.
#[derive(Debug)]
pub struct Page {
    bytes: Vec<u8>,
    size: usize,
}

/// the page is full
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the page is full")]
pub struct Full;

/// What one read of a stream brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filled {
    /// Bytes; there may be more.
    Some,
    /// Nothing for now: the stream will tell when there is.
    Empty,
    /// The other side will send no more.
    Ended,
}

impl Page {
    /// An empty page of so many bytes.
    #[must_use]
    pub fn new(size: usize) -> Page {
        Page { bytes: Vec::with_capacity(size), size }
    }

    /// How many bytes still fit.
    #[must_use]
    pub fn room(&self) -> usize {
        self.size.saturating_sub(self.bytes.len())
    }

    /// Appends all of these bytes or none.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Full> {
        if bytes.len() > self.room() {
            return Err(Full);
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// Empties it.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    /// Empties it, and gives what memory it took beyond `keep` bytes back to the system.
    pub fn release(&mut self, keep: usize) {
        let used = self.bytes.len();
        self.bytes.clear();
        if let Some(memory) = self.bytes.spare_capacity_mut().get_mut(keep..used) {
            sys::discard(memory);
        }
    }

    /// Forgets all but the first `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        self.bytes.truncate(len);
    }

    /// Forgets the first `len` bytes.
    pub fn consume(&mut self, len: usize) {
        self.bytes.drain(..len.min(self.bytes.len()));
    }

    /// Appends what one read gives. A full page reads nothing and says `Empty`.
    pub fn read_from(&mut self, stream: &mut impl Read) -> io::Result<Filled> {
        let mut chunk = [0; 4096];
        let want = self.room().min(chunk.len());
        if want == 0 {
            return Ok(Filled::Empty);
        }
        loop {
            match stream.read(&mut chunk[..want]) {
                Ok(0) => return Ok(Filled::Ended),
                Ok(got) => {
                    self.bytes.extend_from_slice(&chunk[..got.min(want)]);
                    return Ok(Filled::Some);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Filled::Empty),
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes what comes after the first `sent` bytes and moves `sent` on. False: the stream would
    /// block, and will tell when it no longer does.
    pub fn write_to(&self, sent: &mut usize, stream: &mut impl Write) -> io::Result<bool> {
        while let Some(rest) = self.bytes.get(*sent..)
            && !rest.is_empty()
        {
            match stream.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(took) => *sent += took,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

impl Deref for Page {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A formatted text that does not fit may leave its beginning behind: truncate to where it began.
impl fmt::Write for Page {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text.as_bytes()).map_err(|Full| fmt::Error)
    }
}

impl io::Write for Page {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push(bytes).map_err(|full| io::Error::new(io::ErrorKind::StorageFull, full))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_whole() {
        let mut page = Page::new(8);
        assert_eq!(page.push(b"12345"), Ok(()));
        assert_eq!(page.push(b"6789"), Err(Full));
        assert_eq!((&page[..], page.room()), (&b"12345"[..], 3));
        assert_eq!(page.push(b"678"), Ok(()));
        page.consume(6);
        assert_eq!((&page[..], page.room()), (&b"78"[..], 6));
        page.consume(100);
        assert!(page.is_empty());
    }

    #[test]
    fn memory_beyond_what_is_kept_goes_back_to_the_system() {
        let mut page = Page::new(64 << 20);
        let resident = || {
            let statm = std::fs::read_to_string("/proc/self/statm").expect("procfs");
            statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("a number")
        };
        for _ in 0..64 {
            page.push(&[7; 1 << 20]).expect("there is room");
        }
        let full = resident();
        page.release(1 << 20);
        assert!(page.is_empty());
        assert!(full.saturating_sub(resident()) > (32 << 20) / 4096, "most of it is gone from memory");
        page.push(b"and it can be used again").expect("there is room");
    }

    #[test]
    fn a_read_stops_at_the_room_that_there_is() {
        let mut page = Page::new(5);
        let mut stream = &b"1234567"[..];
        assert_eq!(page.read_from(&mut stream).ok(), Some(Filled::Some));
        assert_eq!(page.read_from(&mut stream).ok(), Some(Filled::Empty));
        assert_eq!((&page[..], stream), (&b"12345"[..], &b"67"[..]));
        page.consume(5);
        assert_eq!(page.read_from(&mut stream).ok(), Some(Filled::Some));
        assert_eq!(page.read_from(&mut stream).ok(), Some(Filled::Ended));
    }
}

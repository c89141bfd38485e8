//! Fixed buffers: bytes of a fixed size, allocated once. Bytes that do not fit are refused, so a buffer never allocates
//! again; memory that was never written costs nothing.

use std::fmt;
use std::io::{self, Read, Write};
use std::ops::{Deref, Range};

use crate::sys;

/// A buffer that never grows.
#[derive(Debug)]
pub struct FixedBuf {
    /// All of it, zeros where nothing was written yet.
    bytes: Box<[u8]>,
    len: usize,
}

/// the buffer is full
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the buffer is full")]
pub struct Full;

/// The result of one read of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filled {
    /// Bytes; there may be more.
    Some,
    /// No bytes for now: an event will announce more.
    Empty,
    /// The other side will send no more.
    Ended,
}

impl FixedBuf {
    /// An empty buffer of `size` bytes.
    #[must_use]
    pub fn new(size: usize) -> FixedBuf {
        FixedBuf { bytes: vec![0; size].into(), len: 0 }
    }

    /// How many bytes still fit.
    #[must_use]
    pub fn room(&self) -> usize {
        self.bytes.len().saturating_sub(self.len)
    }

    /// Appends all of these bytes or none.
    #[inline] // a page of metrics is made of thousands of short texts
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Full> {
        let end = self.len.checked_add(bytes.len()).ok_or(Full)?;
        copy(self.bytes.get_mut(self.len..end).ok_or(Full)?, bytes);
        self.len = end;
        Ok(())
    }

    /// Appends a copy of the bytes in `range`.
    pub fn repeat(&mut self, range: Range<usize>) -> Result<(), Full> {
        let (written, rest) = self.bytes.split_at_mut_checked(self.len).ok_or(Full)?;
        let again = written.get(range).ok_or(Full)?;
        copy(rest.get_mut(..again.len()).ok_or(Full)?, again);
        self.len += again.len();
        Ok(())
    }

    /// Empties it.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Empties it, and gives what memory it took beyond `keep` bytes back to the system.
    pub fn release(&mut self, keep: usize) {
        if let Some(memory) = self.bytes.get_mut(keep..self.len) {
            sys::discard(memory);
        }
        self.len = 0;
    }

    /// Drops all but the first `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Drops the first `len` bytes.
    pub fn consume(&mut self, len: usize) {
        let len = len.min(self.len);
        self.bytes.copy_within(len..self.len, 0);
        self.len -= len;
    }

    /// Appends what one read gives. A full buffer reads nothing and says `Empty`.
    pub fn read_from(&mut self, stream: &mut impl Read) -> io::Result<Filled> {
        let Some(room) = self.bytes.get_mut(self.len..).filter(|room| !room.is_empty()) else {
            return Ok(Filled::Empty);
        };
        loop {
            match stream.read(room) {
                Ok(0) => return Ok(Filled::Ended),
                Ok(got) => {
                    self.len += got.min(room.len());
                    return Ok(Filled::Some);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Filled::Empty),
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes the bytes after the first `sent` and advances `sent`. False: the stream would block; an event will announce
    /// when it can be written.
    pub fn write_to(&self, sent: &mut usize, stream: &mut impl Write) -> io::Result<bool> {
        while let Some(rest) = self.get(*sent..)
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

impl Deref for FixedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// Copies between slices of one length. Most are short, and musl's memcpy (`rep movs`) takes longer to
/// begin than to copy them.
fn copy(to: &mut [u8], from: &[u8]) {
    /// Both ends of what has between `N` and `2 * N` bytes: they meet or overlap.
    fn ends<const N: usize>(to: &mut [u8], from: &[u8]) {
        if let (Some(place), Some(first)) = (to.first_chunk_mut::<N>(), from.first_chunk()) {
            *place = *first;
        }
        if let (Some(place), Some(last)) = (to.last_chunk_mut::<N>(), from.last_chunk()) {
            *place = *last;
        }
    }
    match from.len() {
        ..2 => {
            if let (Some(place), Some(byte)) = (to.first_mut(), from.first()) {
                *place = *byte;
            }
        }
        2..4 => ends::<2>(to, from),
        4..8 => ends::<4>(to, from),
        8..16 => ends::<8>(to, from),
        16..32 => ends::<16>(to, from),
        32..64 => ends::<32>(to, from),
        64..=128 => ends::<64>(to, from),
        _ => to.copy_from_slice(from),
    }
}

/// A formatted text that does not fit may leave its beginning behind: truncate to where it began.
impl fmt::Write for FixedBuf {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text.as_bytes()).map_err(|Full| fmt::Error)
    }
}

impl io::Write for FixedBuf {
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
    fn a_push_that_does_not_fit_changes_nothing() {
        let mut buf = FixedBuf::new(8);
        assert_eq!(buf.push(b"12345"), Ok(()));
        assert_eq!(buf.push(b"6789"), Err(Full));
        assert_eq!((&buf[..], buf.room()), (&b"12345"[..], 3));
        assert_eq!(buf.push(b"678"), Ok(()));
        buf.consume(6);
        assert_eq!((&buf[..], buf.room()), (&b"78"[..], 6));
        buf.consume(100);
        assert!(buf.is_empty());
    }

    #[test]
    fn push_and_repeat_write_the_same_bytes_at_every_length() {
        let bytes: Vec<u8> = (0..=255).cycle().take(300).collect();
        for len in 0..bytes.len() {
            let mut buf = FixedBuf::new(2 * len + 1);
            assert_eq!(buf.push(&bytes[..len]), Ok(()));
            assert_eq!(&buf[..], &bytes[..len]);
            assert_eq!(buf.repeat(len / 3..len), Ok(()));
            assert_eq!(&buf[len..], &bytes[len / 3..len]);
            assert_eq!(buf.repeat(0..buf.len() + 1), Err(Full), "there is no such range");
            buf.truncate(len);
            assert_eq!(buf.repeat(0..len), Ok(()));
            assert_eq!(
                (buf.room(), buf.repeat(0..2.min(len))),
                (1, if len > 1 { Err(Full) } else { Ok(()) })
            );
        }
    }

    #[test]
    fn release_returns_memory_to_the_system() {
        let mut buf = FixedBuf::new(64 << 20);
        let resident = || {
            let statm = std::fs::read_to_string("/proc/self/statm").expect("procfs");
            statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("a number")
        };
        for _ in 0..64 {
            buf.push(&[7; 1 << 20]).expect("there is room");
        }
        let full = resident();
        buf.release(1 << 20);
        assert!(buf.is_empty());
        assert!(full.saturating_sub(resident()) > (32 << 20) / 4096, "most of it is gone from memory");
        buf.push(b"and it can be used again").expect("there is room");
    }

    #[test]
    fn a_read_stops_when_the_buffer_is_full() {
        let mut buf = FixedBuf::new(5);
        let mut stream = &b"1234567"[..];
        assert_eq!(buf.read_from(&mut stream).ok(), Some(Filled::Some));
        assert_eq!(buf.read_from(&mut stream).ok(), Some(Filled::Empty));
        assert_eq!((&buf[..], stream), (&b"12345"[..], &b"67"[..]));
        buf.consume(5);
        assert_eq!(buf.read_from(&mut stream).ok(), Some(Filled::Some));
        assert_eq!(buf.read_from(&mut stream).ok(), Some(Filled::Ended));
    }
}

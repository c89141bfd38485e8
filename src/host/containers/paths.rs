//! The cgroup paths of a table's slots, whole, in one arena: most are of a hundred bytes and a few of
//! thousands. The room is set aside once; what was let go of is closed up in place, so nothing here
//! allocates after that.

use std::borrow::Cow;

/// The kernel takes no longer path, its closing zero included.
pub(crate) const PATH_MAX: usize = 4096;

/// Bytes set aside for each slot, all slots together: kind's paths, the longest known, are of 300.
const USUAL: usize = 512;

/// Idle bytes are closed up once they are more than this and the bytes in use together.
const SLACK: usize = 16 << 10;

/// Before each path: its slot (2 bytes), its length (2), and that of its text where that differs (2).
const HEAD: usize = 6;

/// The paths, by slot.
#[derive(Debug, Default)]
pub(crate) struct PathTable {
    bytes: Vec<u8>,
    /// Where each slot's path begins in `bytes`, its head included.
    starts: Vec<Option<u32>>,
    /// Bytes in use, heads included.
    used: usize,
}

/// A path's place and how long its two forms are.
struct Entry {
    slot: u16,
    raw: usize,
    /// 0: the bytes are text themselves.
    text: usize,
}

impl Entry {
    fn whole(&self) -> usize {
        HEAD + self.raw + self.text
    }
}

impl PathTable {
    /// With room for the paths of `slots` slots.
    pub(crate) fn with_capacity(slots: usize) -> PathTable {
        let bytes = Vec::with_capacity(PathTable::room(slots));
        PathTable { bytes, starts: Vec::with_capacity(slots), used: 0 }
    }

    /// The number of bytes set aside for the paths of `slots` slots.
    pub(crate) fn room(slots: usize) -> usize {
        slots.saturating_mul(USUAL) + 2 * PATH_MAX
    }

    /// Keeps a slot's path. False: it is longer than any, or there is no room for all of it.
    pub(crate) fn set(&mut self, slot: u16, path: &[u8]) -> bool {
        self.clear(slot);
        let text = text_len(path);
        let entry = Entry { slot, raw: path.len(), text: if text == path.len() { 0 } else { text } };
        if path.len() >= PATH_MAX || entry.text > usize::from(u16::MAX) {
            return false;
        }
        if self.bytes.len() + entry.whole() > self.bytes.capacity()
            || self.bytes.len() > 2 * self.used + SLACK
        {
            self.close_up();
        }
        let start = self.bytes.len();
        if start + entry.whole() > self.bytes.capacity() || !self.begin(slot, start) {
            return false;
        }
        // Both are below 65536, as was seen above.
        for number in [entry.raw, entry.text] {
            self.bytes.extend(u16::try_from(number).unwrap_or_default().to_ne_bytes());
        }
        self.bytes.extend_from_slice(path);
        if entry.text > 0 {
            each_piece(path, |piece| self.bytes.extend_from_slice(piece.as_bytes()));
        }
        self.used += entry.whole();
        true
    }

    /// Writes the first of a head, and where it is.
    fn begin(&mut self, slot: u16, start: usize) -> bool {
        let (place, Ok(start)) = (usize::from(slot), u32::try_from(start)) else { return false };
        if place >= self.starts.len() {
            if place >= self.starts.capacity() {
                return false;
            }
            self.starts.resize(place + 1, None);
        }
        if let Some(kept) = self.starts.get_mut(place) {
            *kept = Some(start);
        }
        self.bytes.extend(slot.to_ne_bytes());
        true
    }

    /// Forgets a slot's path.
    pub(crate) fn clear(&mut self, slot: u16) {
        if let Some(entry) = self.start(slot).and_then(|start| self.entry(start)) {
            self.used = self.used.saturating_sub(entry.whole());
        }
        if let Some(start) = self.starts.get_mut(usize::from(slot)) {
            *start = None;
        }
    }

    /// A slot's path as the kernel has it; empty if it has none.
    pub(crate) fn raw(&self, slot: u16) -> &[u8] {
        self.part(slot, |entry| HEAD..HEAD + entry.raw)
    }

    /// A slot's path as text: what is no UTF-8 is shown as U+FFFD.
    pub(crate) fn text(&self, slot: u16) -> &str {
        let text = self.part(slot, |entry| match entry.text {
            0 => HEAD..HEAD + entry.raw,
            length => HEAD + entry.raw..HEAD + entry.raw + length,
        });
        std::str::from_utf8(text).unwrap_or_default()
    }

    fn part(&self, slot: u16, which: impl FnOnce(&Entry) -> std::ops::Range<usize>) -> &[u8] {
        let part = self.start(slot).and_then(|start| {
            let entry = self.entry(start)?;
            self.bytes.get(start..)?.get(which(&entry))
        });
        part.unwrap_or_default()
    }

    fn start(&self, slot: u16) -> Option<usize> {
        let start = (*self.starts.get(usize::from(slot))?)?;
        usize::try_from(start).ok()
    }

    fn entry(&self, start: usize) -> Option<Entry> {
        let head: &[u8; HEAD] = self.bytes.get(start..)?.first_chunk()?;
        let [s0, s1, r0, r1, t0, t1] = *head;
        let [raw, text] = [[r0, r1], [t0, t1]].map(|two| usize::from(u16::from_ne_bytes(two)));
        Some(Entry { slot: u16::from_ne_bytes([s0, s1]), raw, text })
    }

    /// Moves the paths that are in use together, to the front.
    fn close_up(&mut self) {
        let (mut from, mut to) = (0, 0);
        while let Some(entry) = self.entry(from) {
            let end = from + entry.whole();
            if self.start(entry.slot) == Some(from)
                && let Ok(start) = u32::try_from(to)
                && let Some(kept) = self.starts.get_mut(usize::from(entry.slot))
            {
                self.bytes.copy_within(from..end, to);
                *kept = Some(start);
                to += entry.whole();
            }
            from = end;
        }
        self.bytes.truncate(to);
    }
}

/// A path as it is shown, in pieces.
fn each_piece(path: &[u8], mut each: impl FnMut(&str)) {
    for chunk in path.utf8_chunks() {
        each(chunk.valid());
        if !chunk.invalid().is_empty() {
            each("\u{fffd}");
        }
    }
}

fn text_len(path: &[u8]) -> usize {
    let mut length = 0;
    each_piece(path, |piece| length += piece.len());
    length
}

/// Writes a path as it is shown. Takes no memory where three times the path's length is set aside.
pub(crate) fn show(path: &[u8], into: &mut String) {
    into.clear();
    each_piece(path, |piece| into.push_str(piece));
}

/// A path as it is shown. Takes no memory for one that is UTF-8.
pub(crate) fn shown(path: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_any_length_is_kept_whole() {
        let mut paths = PathTable::with_capacity(4);
        let long = "/deep".repeat(800);
        assert!(paths.set(0, b"/docker/a") && paths.set(3, long.as_bytes()));
        assert_eq!((paths.text(0), paths.text(3)), ("/docker/a", &*long));
        assert_eq!((paths.raw(0), paths.raw(1)), (&b"/docker/a"[..], &b""[..]));
        assert!(!paths.set(1, "/".repeat(PATH_MAX).as_bytes()), "the kernel takes no such path");
        assert!(paths.set(0, b"") && paths.text(0).is_empty(), "the root's");
    }

    #[test]
    fn a_non_utf8_path_is_kept_raw_and_shown_as_text() {
        let mut paths = PathTable::with_capacity(4);
        for path in [&b"/a\xff\xfe.slice/b"[..], b"/\xc3", b"/\xc3\xa9/\xe2\x82/x"] {
            assert!(paths.set(1, path));
            assert_eq!((paths.raw(1), paths.text(1)), (path, &*shown(path)));
        }
    }

    #[test]
    fn a_full_path_store_refuses_until_a_path_is_removed() {
        let mut paths = PathTable::with_capacity(32);
        let long = vec![b'x'; PATH_MAX - 1];
        let kept = (0..32).find(|slot| !paths.set(*slot, &long)).expect("not all fit");
        assert_eq!(usize::from(kept), PathTable::room(32) / (PATH_MAX - 1 + HEAD));
        paths.clear(1);
        assert!(paths.set(31, &long), "what was let go of is closed up");
        assert!((0..kept).filter(|slot| *slot != 1).all(|slot| paths.raw(slot) == long));
        assert!(paths.raw(1).is_empty());
    }

    /// Against a map, over thousands of changes.
    #[test]
    fn each_slot_keeps_its_own_path_through_any_insertions_and_removals() {
        let mut paths = PathTable::with_capacity(64);
        let mut want: Vec<Vec<u8>> = vec![Vec::new(); 64];
        let mut random = 7_u64;
        let mut next = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % below
        };
        let capacity = paths.bytes.capacity();
        for step in 0..20_000_u64 {
            let slot = u16::try_from(next(64)).expect("below 64");
            let place = usize::from(slot);
            if next(3) == 0 {
                paths.clear(slot);
                want[place].clear();
            } else {
                let length = if next(20) == 0 { next(2000) } else { next(200) };
                let path: Vec<u8> = (0..length).map(|_| if next(50) == 0 { 0xff } else { b'a' }).collect();
                if paths.set(slot, &path) { want[place] = path } else { want[place].clear() }
            }
            if step % 16 == 0 {
                for (slot, path) in (0..).zip(&want) {
                    assert_eq!(paths.raw(slot), path, "{step}");
                    assert_eq!(paths.text(slot), shown(path));
                }
            }
        }
        assert_eq!(paths.bytes.capacity(), capacity, "it never grows");
    }
}

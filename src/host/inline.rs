//! Short text with its bytes inside: tables of it are set aside once and never allocate again.

use std::fmt;
use std::ops::Deref;

/// Text of at most `N` bytes.
#[derive(Clone, Copy)]
pub struct Text<const N: usize> {
    len: u16,
    bytes: [u8; N],
}

impl<const N: usize> Text<N> {
    /// No text.
    pub const EMPTY: Text<N> = Text { len: 0, bytes: [0; N] };

    /// All of this text, if it fits.
    #[must_use]
    pub fn new(text: &str) -> Option<Text<N>> {
        let mut new = Text::EMPTY;
        new.bytes.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        new.len = u16::try_from(text.len()).ok()?;
        Some(new)
    }

    /// As much of this text's beginning as fits, cut between characters.
    #[must_use]
    pub fn cut(text: &str) -> Text<N> {
        let most = text.len().min(N);
        let fitting = (0..=most).rev().find_map(|len| text.get(..len));
        fitting.and_then(Text::new).unwrap_or(Text::EMPTY)
    }

    /// These parts as one text, if they fit.
    #[must_use]
    pub fn joined(parts: &[&str]) -> Option<Text<N>> {
        let mut new = Text::<N>::EMPTY;
        let mut len = 0_usize;
        for part in parts {
            let end = len.checked_add(part.len())?;
            new.bytes.get_mut(len..end)?.copy_from_slice(part.as_bytes());
            len = end;
        }
        new.len = u16::try_from(len).ok()?;
        Some(new)
    }

    /// With every `from` as `to`, both ASCII.
    #[must_use]
    pub(crate) fn replaced(mut self, from: u8, to: u8) -> Text<N> {
        if from.is_ascii() && to.is_ascii() {
            for byte in &mut self.bytes {
                if *byte == from {
                    *byte = to;
                }
            }
        }
        self
    }
}

impl<const N: usize> Deref for Text<N> {
    type Target = str;

    fn deref(&self) -> &str {
        let bytes = self.bytes.get(..usize::from(self.len)).unwrap_or_default();
        std::str::from_utf8(bytes).unwrap_or_default()
    }
}

impl<const N: usize> fmt::Debug for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl<const N: usize> PartialEq for Text<N> {
    fn eq(&self, other: &Text<N>) -> bool {
        **self == **other
    }
}

impl<const N: usize> Eq for Text<N> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_does_not_fit_is_refused_or_cut_between_characters() {
        assert_eq!(&*Text::<4>::new("abcd").expect("fits"), "abcd");
        assert_eq!(Text::<4>::new("abcde"), None);
        assert_eq!(&*Text::<4>::joined(&["/a", "/", "b"]).expect("fits"), "/a/b");
        assert_eq!(Text::<4>::joined(&["/a", "/bc"]), None);
        assert_eq!(&*Text::<4>::cut("abc\u{e9}"), "abc");
        assert_eq!(&*Text::<8>::new("a_b_c").expect("fits").replaced(b'_', b'-'), "a-b-c");
    }
}

//! What a capture brings lies in an arena of a stated size: it is handed over whole, and given back whole.
//! Past its size nothing is allocated; how much was left out is counted.

use std::cell::Cell;
use std::collections::HashSet;
use std::mem::MaybeUninit;
use std::ops::Deref;

use bumpalo::Bump;
use bumpalo::collections::Vec as BumpVec;

/// A list that takes no more than one part in this many of the room is set aside whole, before it is known whether what it
/// refers to fits.
const FEW_PART: usize = 8;

/// What an arena may keep resident while nothing lies in it.
const RESIDENT_MAX: usize = 16 << 10;

/// What memory is given back in: a page, on most kernels.
pub type Page = [u8; 4096];

/// Memory of a stated size, taken once.
#[derive(Debug, Default)]
pub struct Arena {
    bump: Bump,
    size: usize,
    /// What the allocator gave beyond `size`.
    spare: usize,
    /// Bytes of rows that are made, but are not in the arena yet: what they refer to comes first.
    reserved: Cell<usize>,
}

impl Arena {
    /// With room for `size` bytes. What is never written to is not resident.
    #[must_use]
    pub fn new(size: usize) -> Arena {
        let bump = Bump::with_capacity(size);
        bump.set_allocation_limit(Some(bump.allocated_bytes()));
        let spare = bump.chunk_capacity().saturating_sub(size);
        Arena { bump, size, spare, reserved: Cell::new(0) }
    }

    /// Bytes that it has room for when it is empty.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// Bytes that are left.
    #[must_use]
    pub fn room(&self) -> usize {
        self.bump.chunk_capacity().saturating_sub(self.spare + self.reserved.get())
    }

    /// A copy of `text`. `None`: it does not fit.
    #[must_use]
    pub fn text(&self, text: &str) -> Option<&str> {
        if text.len() > self.room() {
            return None;
        }
        self.bump.try_alloc_str(text).ok().map(|text| &*text)
    }

    /// Rows that `make` makes of `sources`, with texts and lists of their own in this arena; it returns `None` where
    /// one does not fit. From the first one that does not, all are left out: who calls has the least come last.
    pub fn rows<S, T: Copy>(
        &self,
        sources: impl ExactSizeIterator<Item = S>,
        mut make: impl FnMut(S) -> Option<T>,
    ) -> Rows<'_, T> {
        let (total, row) = (sources.len(), size_of::<T>());
        if total.saturating_mul(row) <= self.room() / FEW_PART {
            return self.rows_within(total, sources, make);
        }
        let before = self.reserved.get();
        self.reserved.set(before + align_of::<T>());
        let mut list = Vec::new();
        for source in sources {
            if self.room() < row {
                break;
            }
            self.reserved.set(self.reserved.get() + row);
            let Some(made) = make(source) else { break };
            list.push(made);
        }
        self.reserved.set(before);
        let list: &[T] = self.bump.try_alloc_slice_copy(&list).map_or(&[], |list| &*list);
        Rows { list, left_out: total.saturating_sub(list.len()) }
    }

    /// Rows without texts of their own.
    pub fn plain_rows<T: Copy>(&self, rows: impl ExactSizeIterator<Item = T>) -> Rows<'_, T> {
        let room = self.room().saturating_sub(align_of::<T>());
        self.rows_within(room / size_of::<T>().max(1), rows, Some)
    }

    /// All of the rows, or `None` if one does not fit.
    pub fn whole<S, T: Copy>(
        &self,
        sources: impl ExactSizeIterator<Item = S>,
        make: impl FnMut(S) -> Option<T>,
    ) -> Option<&[T]> {
        let total = sources.len();
        if total.saturating_mul(size_of::<T>()) + align_of::<T>() > self.room() {
            return None;
        }
        let rows = self.rows_within(total, sources, make);
        (rows.left_out == 0).then_some(rows.list)
    }

    /// Up to `most` rows, for which the caller has seen that there is room.
    fn rows_within<S, T: Copy>(
        &self,
        most: usize,
        sources: impl ExactSizeIterator<Item = S>,
        make: impl FnMut(S) -> Option<T>,
    ) -> Rows<'_, T> {
        let total = sources.len();
        let most = total.min(most);
        let mut list = BumpVec::new_in(&self.bump);
        // Nothing is pushed beyond what is reserved here.
        if list.try_reserve_exact(most).is_ok() {
            list.extend(sources.take(most).map_while(make));
        }
        let list: &[T] = list.into_bump_slice();
        Rows { list, left_out: total.saturating_sub(list.len()) }
    }

    /// Empties it. `discard` is lent what was written to, if that is more than an arena may keep resident.
    pub fn reset(&mut self, discard: impl FnOnce(&mut [MaybeUninit<Page>])) {
        self.reserved.set(0);
        let used = self.size.saturating_sub(self.room());
        self.bump.reset();
        if used > RESIDENT_MAX {
            let unset = |_| MaybeUninit::uninit();
            if let Ok(pages) = self.bump.try_alloc_slice_fill_with(used / size_of::<Page>(), unset) {
                discard(pages);
            }
            self.bump.reset();
        }
    }
}

/// A list that lies in an arena, and how many more rows there were that the arena had no room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rows<'a, T> {
    list: &'a [T],
    left_out: usize,
}

impl<'a, T> Rows<'a, T> {
    /// The rows that there was room for.
    #[must_use]
    pub fn list(&self) -> &'a [T] {
        self.list
    }

    /// How many there was no room for.
    #[must_use]
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    /// The same rows, of a list of which `more` are left out beyond those.
    #[must_use]
    pub fn with_left_out(self, more: usize) -> Rows<'a, T> {
        Rows { left_out: self.left_out.saturating_add(more), ..self }
    }
}

impl<T> Default for Rows<'_, T> {
    fn default() -> Self {
        Rows { list: &[], left_out: 0 }
    }
}

impl<T> Deref for Rows<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        self.list
    }
}

/// A list of which nothing is left out.
impl<'a, T> From<&'a [T]> for Rows<'a, T> {
    fn from(list: &'a [T]) -> Rows<'a, T> {
        Rows { list, left_out: 0 }
    }
}

impl<'a, T> IntoIterator for &Rows<'a, T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.list.iter()
    }
}

/// Texts many of which are alike, as functions are in stacks: each lies in the arena once.
#[derive(Debug)]
pub struct Texts<'a> {
    arena: &'a Arena,
    known: HashSet<&'a str>,
}

impl<'a> Texts<'a> {
    /// None yet.
    #[must_use]
    pub fn new(arena: &'a Arena) -> Texts<'a> {
        Texts { arena, known: HashSet::new() }
    }

    /// A copy of `text`, or the one that there is. `None`: it does not fit.
    pub fn text(&mut self, text: &str) -> Option<&'a str> {
        if let Some(known) = self.known.get(text) {
            return Some(known);
        }
        let text = self.arena.text(text)?;
        self.known.insert(text);
        Some(text)
    }

    /// Copies of all these, in a list. `None`: one does not fit.
    pub fn list<'t>(&mut self, texts: impl ExactSizeIterator<Item = &'t str>) -> Option<&'a [&'a str]> {
        self.arena.whole(texts, |text| self.text(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_past_the_arenas_size_are_counted_and_the_arena_takes_no_more_memory() {
        let arena = Arena::new(4096);
        let before = arena.bump.allocated_bytes();
        let numbers = arena.plain_rows((0..1000_u32).map(u64::from));
        assert_eq!((numbers.len(), numbers.left_out()), (511, 489), "and a little for alignment");
        assert_eq!(numbers.list(), (0..511).collect::<Vec<_>>());
        assert_eq!(arena.text("much too long"), None);
        assert_eq!(arena.bump.allocated_bytes(), before);
    }

    #[test]
    fn a_row_whose_text_does_not_fit_is_left_out_with_all_after_it() {
        let arena = Arena::new(1000);
        let names = ["a".repeat(10), "b".repeat(2000), "c".into()];
        let rows = arena.rows(names.iter(), |name| arena.text(name));
        assert_eq!((rows.list(), rows.left_out()), (&[names[0].as_str()][..], 2));
        assert_eq!(arena.whole(names.iter(), |name| arena.text(name)), None);
    }

    #[test]
    fn rows_and_their_texts_and_lists_fill_the_arena() {
        let arena = Arena::new(64 << 10);
        // Of 24 and 9 bytes.
        let rows = arena.rows(0..1_000_000, |number: u32| Some((arena.text("some name")?, number)));
        assert!((1980..1986).contains(&rows.len()), "{}", rows.len());
        assert_eq!(rows.len() + rows.left_out(), 1_000_000);
        assert!(arena.room() < 40, "{} bytes are left", arena.room());
        let arena = Arena::new(64 << 10);
        let list = |_| Some(arena.rows(0..4_usize, |number| Some((number, arena.text("a name")?))));
        let rows = arena.rows(0..1000, list);
        // Each is of 24 bytes, with a list of 4 times 24 and texts of 24.
        assert!((440..456).contains(&rows.len()), "{}", rows.len());
        assert!(rows.iter().all(|row| row.iter().all(|(_, name)| *name == "a name")));
    }

    #[test]
    fn a_text_that_came_before_takes_no_more_room() {
        let arena = Arena::new(100);
        let mut texts = Texts::new(&arena);
        let first = texts.text(&"x".repeat(90)).expect("room");
        let second = texts.text(&"x".repeat(90)).expect("it is there");
        assert!(std::ptr::eq(first, second));
        assert_eq!(texts.text(&"y".repeat(90)), None);
    }

    #[test]
    fn an_arena_that_is_reset_has_all_of_its_room_again_in_the_same_place() {
        let mut arena = Arena::new(1 << 20);
        let (place, room) = (arena.text("x").expect("room").as_ptr(), arena.room());
        arena.reset(|_| panic!("a byte may stay resident"));
        assert_eq!((arena.text("y").expect("room").as_ptr(), arena.room()), (place, room));
        arena.plain_rows((0..100_000_u32).map(u64::from));
        let mut bytes = 0;
        arena.reset(|pages| bytes = size_of_val(pages));
        assert!((796_000..=800_008).contains(&bytes), "{bytes}");
        assert_eq!(arena.room(), 1 << 20);
    }

    #[test]
    fn every_size_is_kept_to_the_byte() {
        for size in [0, 1, 100, 511, 4096, 5000, 1 << 20] {
            let arena = Arena::new(size);
            assert_eq!((arena.room(), arena.size()), (size, size));
            assert_eq!(arena.text(&"x".repeat(size)).map(str::len), Some(size));
            assert_eq!(arena.text("x"), None);
        }
    }
}

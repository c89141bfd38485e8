//! What a tracer remembers of each container, in memory that is set aside at start.

use crate::host::{Container, Key};

/// One `T` for each container. A slot that went to another container begins anew.
#[derive(Debug)]
pub struct Subjects<T>(Vec<Option<(Key, T)>>);

impl<T: Default> Subjects<T> {
    /// Room for `capacity` containers. A slot that no container had yet is not written to, and so costs nothing.
    pub fn new(capacity: usize) -> Subjects<T> {
        Subjects(Vec::with_capacity(capacity))
    }

    /// What is remembered of this container; something new if nothing is. `None` beyond capacity.
    pub fn of(&mut self, key: Key) -> Option<&mut T> {
        let slot = usize::from(key.slot);
        if slot >= self.0.capacity() {
            return None;
        }
        while self.0.len() <= slot {
            self.0.push(None);
        }
        let slot = self.0.get_mut(slot)?;
        if slot.as_ref().is_none_or(|(owner, _)| *owner != key) {
            *slot = Some((key, T::default()));
        }
        slot.as_mut().map(|(_, value)| value)
    }

    /// What is remembered of this container, if anything is.
    pub fn get(&self, key: Key) -> Option<&T> {
        let (owner, value) = self.0.get(usize::from(key.slot))?.as_ref()?;
        (*owner == key).then_some(value)
    }

    /// What is remembered of this container, to change it, if anything is.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let (owner, value) = self.0.get_mut(usize::from(key.slot))?.as_mut()?;
        (*owner == key).then_some(value)
    }
}

/// A container's labels in metrics: `container_id, container, pod, namespace`.
pub fn labels(container: Container<'_>) -> [&str; 4] {
    [container.id(), container.name(), container.pod(), container.namespace()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_given_to_another_container_begins_anew() {
        let mut subjects: Subjects<u32> = Subjects::new(2);
        let (first, second) = (Key { slot: 1, generation: 1 }, Key { slot: 1, generation: 2 });
        *subjects.of(first).expect("room") = 7;
        assert_eq!(subjects.get(first), Some(&7));
        assert_eq!(subjects.get(second), None);
        assert_eq!(subjects.of(second), Some(&mut 0));
        assert_eq!(subjects.get_mut(first), None, "the first is forgotten");
        assert_eq!(subjects.of(Key { slot: 2, generation: 1 }), None, "beyond capacity");
    }
}

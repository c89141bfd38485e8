//! A container's key, inside the agent and in BPF programs: its place in the table.

/// A container's place in the table of containers. The generation tells apart two that had the
/// same slot at different times, so a key outlives its container without naming another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Index below the table's capacity.
    pub slot: u16,
    /// Grows by one each time that the slot is given away.
    pub generation: u32,
}

impl Key {
    /// Tells a key from "no container", which is 0.
    const SOME: u64 = 1 << 63;

    /// The key as BPF programs have it.
    #[must_use]
    pub fn to_bits(self) -> u64 {
        Key::SOME | u64::from(self.generation) << 16 | u64::from(self.slot)
    }

    /// The key from a BPF program's value; `None`: no container.
    #[must_use]
    pub fn from_bits(bits: u64) -> Option<Key> {
        let slot = u16::try_from(bits & 0xffff).ok()?;
        let generation = u32::try_from((bits & !Key::SOME) >> 16).ok()?;
        (bits & Key::SOME != 0).then_some(Key { slot, generation })
    }
}

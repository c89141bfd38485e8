//! A BPF ring buffer, read in portions. The kernel only wakes a reader that had caught up, so one
//! that stops at its budget is told `More` and has to come again by itself.

use std::sync::{Arc, Mutex, PoisonError};

use libbpf_rs::{MapCore, RingBuffer, RingBufferBuilder};

/// How a ring was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// With nothing in it.
    Empty,
    /// The budget was used up: there may be more.
    More,
}

/// A ring buffer that is mapped into this process.
pub struct Ring {
    buffer: RingBuffer<'static>,
    batch: Arc<Mutex<Batch>>,
}

/// Records copied out of the ring, one after the other.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Ring {
    /// Maps the ring behind a map.
    pub fn open(map: &dyn MapCore) -> Result<Ring, libbpf_rs::Error> {
        let batch = Arc::new(Mutex::new(Batch::default()));
        let sink = Arc::clone(&batch);
        let mut builder = RingBufferBuilder::new();
        builder.add(map, move |record| {
            let mut batch = sink.lock().unwrap_or_else(PoisonError::into_inner);
            batch.bytes.extend_from_slice(record);
            let end = batch.bytes.len();
            batch.ends.push(end);
            0
        })?;
        Ok(Ring { buffer: builder.build()?, batch })
    }

    /// Sets memory aside, so that draining so many records of so many bytes takes none.
    pub fn reserve(&mut self, records: usize, bytes: usize) {
        let mut batch = self.batch.lock().unwrap_or_else(PoisonError::into_inner);
        batch.ends.reserve(records);
        batch.bytes.reserve(records.saturating_mul(bytes));
    }

    /// Hands out what is in the ring, at most `budget` records.
    pub fn drain(&mut self, budget: u32, mut each: impl FnMut(&[u8])) -> Drained {
        let most = usize::try_from(budget).unwrap_or(usize::MAX);
        let took = self.buffer.consume_raw_n(most);
        let mut batch = self.batch.lock().unwrap_or_else(PoisonError::into_inner);
        let mut start = 0;
        for end in &batch.ends {
            each(batch.bytes.get(start..*end).unwrap_or_default());
            start = *end;
        }
        batch.bytes.clear();
        batch.ends.clear();
        // A negative number is an error, of which a record in the ring is no part.
        if u32::try_from(took).is_ok_and(|took| took >= budget) { Drained::More } else { Drained::Empty }
    }
}

//! What holds for every tracer, whatever happens.

use crate::tracer::{TRACERS, fuzz};

/// A generator of scripts that are the same in each run (splitmix64).
struct Seeded(u64);

impl Seeded {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[test]
fn every_tracer_keeps_its_word_in_any_script_of_events() {
    let mut seeded = Seeded(7);
    for round in 0..400_u64 {
        let first = u8::try_from(round % TRACERS.len() as u64).expect("few tracers");
        let len = seeded.next() % 6000;
        let random = (0..len).map(|_| seeded.next().to_le_bytes()[0]);
        fuzz::events(&[first].into_iter().chain(random).collect::<Vec<u8>>());
    }
}

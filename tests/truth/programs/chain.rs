//! Burns CPU in `inner`, which a method of a generic type calls, which `outer` calls.

mod deep {
    pub struct Work<T>(pub T);

    impl<T: Into<u64> + Copy> Work<T> {
        #[inline(never)]
        pub fn middle(&self) -> u64 {
            let mut sum = 0;
            for _ in 0..100 {
                sum += std::hint::black_box(super::inner(self.0.into()));
            }
            sum
        }
    }
}

#[inline(never)]
fn inner(rounds: u64) -> u64 {
    let mut sum = 0_u64;
    for round in 0..rounds {
        sum ^= std::hint::black_box(round).wrapping_mul(2_654_435_761);
    }
    sum
}

#[inline(never)]
fn outer(work: &deep::Work<u32>) -> u64 {
    std::hint::black_box(work.middle())
}

fn main() {
    let work = deep::Work(3_000_000_u32);
    while std::hint::black_box(outer(&work)) != 1 {}
}

//! before
use onset::stacks::{Row, fold};
use crate::{ALLOCATIONS, FREES};

#[test]
fn before() {
    let names: Vec<String> = (0..3000).map(|n| format!("a_function_of_some_length_{n}")).collect();
    let mut seed = 7_u64;
    let mut draw = move |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from((seed >> 33) % below).unwrap()
    };
    let rows: Vec<Row<'_>> = (0..10_000u32).map(|n| {
        let mut stack = |deep: u64| (0..deep).map(|at| names[draw(4 + at * 40)].as_str()).rev().collect::<Vec<_>>();
        Row { pid: n % 50, comm: "nginx", weight: 1, user: stack(24), kernel: stack(8) }
    }).collect();
    let (a, f) = (ALLOCATIONS.get(), FREES.get());
    let t = std::time::Instant::now();
    let profile = fold(99, rows.iter().cloned());
    let took = t.elapsed();
    println!("taken {} freed {} took {:?} nodes {}", ALLOCATIONS.get() - a, FREES.get() - f, took, profile.flame.len());
    let f = FREES.get();
    drop(profile);
    println!("freed when dropped {}", FREES.get() - f);
}

//! A profile of ten seconds of two CPUs: 1,980 samples are named and folded. Addresses are of this
//! program, of the C library, and of this kernel.

use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use onset::capture_data::{Arena, CaptureKind};
use onset::stacks::{Fold, Row};
use onset::symbol::{Image, Layout, Stack, Symbolizer, UserFrame};

use crate::table::{Budget, head, line, ns_of};

/// At 99 Hz, on two CPUs, for ten seconds.
const SAMPLES: u64 = 1980;
/// Different ones among them, each so often.
const STACKS: u64 = 330;
const DEEP: u64 = 24;
/// Longer than it takes.
const MINUTE: Duration = Duration::from_secs(60);

pub fn lines() {
    head("a profile of 10 s, 2 CPUs: 1980 samples, 330 stacks");
    let drawn = stacks();
    let stack = |(user, kernel): &'static (Vec<UserFrame>, Vec<u64>)| Stack {
        image: Image { pid: std::process::id(), id: 0 },
        weight: SAMPLES / STACKS,
        user,
        kernel,
    };
    let stacks: Vec<Stack<'_>> = drawn.leak().iter().map(stack).collect();
    let named = ns_of(9, 1, || _ = black_box(name(&stacks).resolve(&stacks, Instant::now() + MINUTE)));
    let kernel = ns_of(9, 1, || _ = black_box(fs::read("/proc/kallsyms")));
    let names = name(&stacks).resolve(&stacks, Instant::now() + MINUTE);
    let mut arena = Arena::new(CaptureKind::Stacks.arena_bytes());
    let folded = ns_of(25, 1, || {
        let mut fold = Fold::new(&arena);
        let mut row = Row { comm: "onset", ..Row::default() };
        for stack in &stacks {
            names.fill(*stack, &mut row);
            fold.add(&row);
        }
        black_box(fold.finish(99));
        arena.reset(|_| ());
    });
    line("named (on a helper thread)", named, Some(("reading /proc/kallsyms", kernel)), Budget::None);
    line("folded (on a helper thread)", folded, None, Budget::None);
    line("a sample, named and folded", (named + folded) / SAMPLES as f64, None, Budget::None);
}

fn name(stacks: &[Stack<'_>]) -> Symbolizer {
    let mut symbols = Symbolizer::new(Path::new("/proc"));
    let layout = Layout::now(Path::new("/proc"), std::process::id()).expect("this process");
    for stack in stacks {
        symbols.observe(stack.image, layout, stack.user, Instant::now());
    }
    symbols
}

/// Where code is in this process.
fn code() -> Vec<(u64, u64)> {
    let maps = fs::read_to_string("/proc/self/maps").expect("procfs");
    let number = |text: &str| u64::from_str_radix(text, 16).expect("hex");
    let ranges = maps.lines().filter(|line| line.contains(" r-xp ") && line.contains('/'));
    let range = |line: &str| {
        let (from, to) = line.split(' ').next()?.split_once('-')?;
        Some((number(from), number(to)))
    };
    ranges.filter_map(range).collect()
}

/// Functions of the kernel; zeros where they are kept from us.
fn functions() -> Vec<u64> {
    let symbols = fs::read_to_string("/proc/kallsyms").unwrap_or_default();
    let all = symbols.lines().filter(|line| line.contains(" t ") || line.contains(" T "));
    all.filter_map(|line| u64::from_str_radix(line.get(..16)?, 16).ok()).collect()
}

fn stacks() -> Vec<(Vec<UserFrame>, Vec<u64>)> {
    let (code, functions) = (code(), functions());
    let mut seed = 7_u64;
    let mut draw = move |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) % below.max(1)
    };
    let at = |place: u64| usize::try_from(place).expect("small");
    let mut stack = || {
        let user = (0..DEEP)
            .map(|_| {
                let (from, to) = code[at(draw(code.len() as u64))];
                UserFrame::Address(from + draw(to - from))
            })
            .collect();
        let kernel = (0..draw(9))
            .filter_map(|_| functions.get(at(draw(functions.len() as u64))).map(|function| function + 5))
            .collect();
        (user, kernel)
    };
    (0..STACKS).map(|_| stack()).collect()
}

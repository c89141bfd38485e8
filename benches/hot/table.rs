//! One table: a figure, what stands beside it, their ratio, and the budget. CPU time of the thread that
//! works, so that whoever else is on the machine does not count; medians of many rounds.

use std::time::Duration;

/// Each figure is the median of so many rounds.
const ROUNDS: usize = 25;

/// A round lasts about so long: far above what reading the clock costs.
const ROUND: Duration = Duration::from_millis(3);

/// CPU time of this thread.
pub fn cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec, which is ours.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}

/// Nanoseconds of CPU that one call takes.
pub fn ns(mut call: impl FnMut()) -> f64 {
    call();
    let began = cpu();
    call();
    let once = (cpu() - began).as_nanos().max(1);
    let calls = u32::try_from(ROUND.as_nanos() / once).unwrap_or(u32::MAX).clamp(1, 100_000);
    rounds(ROUNDS, calls, cpu, call)
}

/// The same where each call uses something up: so many rounds of so many calls, and no more.
pub fn ns_of(count: usize, calls: u32, call: impl FnMut()) -> f64 {
    rounds(count, calls, cpu, call)
}

/// Nanoseconds by the clock on the wall, of what waits.
pub fn waited(count: usize, call: impl FnMut()) -> f64 {
    let began = std::time::Instant::now();
    rounds(count, 1, || began.elapsed(), call)
}

fn rounds(count: usize, calls: u32, clock: impl Fn() -> Duration, mut call: impl FnMut()) -> f64 {
    let round = || {
        let began = clock();
        (0..calls).for_each(|_| call());
        (clock() - began).as_nanos() as f64 / f64::from(calls)
    };
    let mut times: Vec<f64> = std::iter::repeat_with(round).take(count).collect();
    times.sort_by(f64::total_cmp);
    times[count / 2]
}

/// What a figure must not pass.
#[derive(Clone, Copy)]
pub enum Budget {
    /// None is set.
    None,
    /// Microseconds.
    Us(f64),
    /// Times what stands beside it.
    Ratio(f64),
}

/// The columns' names.
pub fn head(title: &str) {
    println!("\n{title:<50} {:>13}  {:<38} {:>8}  budget", "onset", "beside", "ratio");
}

/// One line in microseconds.
pub fn line(what: &str, ns: f64, beside: Option<(&str, f64)>, budget: Budget) {
    let ratio = beside.map_or(f64::NAN, |(_, other)| ns / other.max(0.1));
    let figure = format!("{:.2} us", ns / 1000.0);
    let other = beside.map(|(name, other)| format!("{name} {:.2} us", other / 1000.0));
    print(what, &figure, other, ratio, &judged(ns, ratio, budget));
}

/// One line in bytes a second; here a ratio above 1 is faster.
pub fn speed(what: &str, bytes: usize, ns: f64, beside: Option<(&str, f64)>) {
    let mb = |ns: f64| bytes as f64 * 1000.0 / ns.max(0.1);
    let ratio = beside.map_or(f64::NAN, |(_, other)| other / ns.max(0.1));
    let other = beside.map(|(name, other)| format!("{name} {:.0} MB/s", mb(other)));
    print(what, &format!("{:.0} MB/s", mb(ns)), other, ratio, "");
}

fn print(what: &str, figure: &str, beside: Option<String>, ratio: f64, budget: &str) {
    let beside = beside.unwrap_or_default();
    let ratio = if ratio.is_nan() { String::new() } else { format!("{ratio:.2} x") };
    let text = format!("{what:<50} {figure:>13}  {beside:<38} {ratio:>8}  {budget}");
    println!("{}", text.trim_end());
}

fn judged(ns: f64, ratio: f64, budget: Budget) -> String {
    let (text, kept) = match budget {
        Budget::None => return String::new(),
        Budget::Us(us) => (format!("{us} us"), ns <= us * 1000.0),
        Budget::Ratio(most) => (format!("{most} x"), ratio <= most),
    };
    format!("{text}{}", if kept { "" } else { "  MISSED" })
}

//! An agent that starts may follow one that is still exiting: a killed agent holds its port, its socket and its
//! log until the kernel has closed all its files. Whoever finds one of them held tries again for a short time.

use std::time::{Duration, Instant};

/// The kernel closes the files of a killed agent within this time, those of an open capture included.
pub const EXIT: Duration = Duration::from_secs(1);

/// How long one attempt lies behind the other.
const AGAIN: Duration = Duration::from_millis(10);

/// Attempts `take` until it succeeds or fails with an error that is not `held`, but no longer than `EXIT`.
pub fn take<T, E>(held: impl Fn(&E) -> bool, mut take: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    let began = Instant::now();
    loop {
        match take() {
            Err(error) if held(&error) && began.elapsed() < EXIT => std::thread::sleep(AGAIN),
            taken => return taken,
        }
    }
}

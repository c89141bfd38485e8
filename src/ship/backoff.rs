//! When the server is asked again: exponential back-off with jitter, so that a fleet does not come
//! back at once; a slow pace where only a person can help; a cap on the rate of catching up. Pure.

use std::time::Duration;

use crate::clock::Wall;

/// The first pause after a failure; each further one is twice as long, up to the configured most.
const FIRST: Duration = Duration::from_millis(500);
/// Where only a change on the server or of the config helps.
const SLOW: Duration = Duration::from_secs(60);
/// A server that asks for more patience than this is asked again all the same.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It passes by itself: overload, a restart, a broken connection.
    Transient,
    /// It does not pass by itself: rights, a missing index, a wrong address.
    Persistent,
}

/// Exponential back-off: the pauses between attempts.
#[derive(Debug)]
pub struct Backoff {
    random: u64,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    /// `seed` differs between agents; `longest` is the longest pause after what will pass.
    #[must_use]
    pub fn new(seed: u64, longest: Duration) -> Backoff {
        Backoff { random: seed | 1, longest, failures: 0 }
    }

    /// Changes the longest pause.
    pub fn set_longest(&mut self, longest: Duration) {
        self.longest = longest;
    }

    /// A request succeeded: the next failure is the first one.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// How long to wait after one more failure.
    pub fn pause(&mut self, failure: Failure, retry_after: Option<Duration>) -> Duration {
        let doubled = FIRST.saturating_mul(1 << self.failures.min(20));
        self.failures = self.failures.saturating_add(1);
        let own = match failure {
            Failure::Transient => doubled.min(self.longest),
            Failure::Persistent => SLOW,
        };
        let asked = retry_after.map_or(Duration::ZERO, |asked| asked.min(RETRY_AFTER_MAX));
        if asked >= own {
            // Never before the server wants it, and not all at the same moment.
            return asked + asked.mul_f64(self.fraction() / 4.0);
        }
        (own / 2 + (own / 2).mul_f64(self.fraction())).max(asked)
    }

    /// From 0 to 1 (xorshift64).
    fn fraction(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        f64::from(u32::try_from(self.random >> 32).unwrap_or(0)) / f64::from(u32::MAX)
    }
}

/// A limit on bytes per second: after each request the next one waits.
#[derive(Debug)]
pub struct RateLimit {
    bytes_per_second: u64,
    free_at: Duration,
}

impl RateLimit {
    /// No more than this; 0 is no rate_limit.
    #[must_use]
    pub fn new(bytes_per_second: u64) -> RateLimit {
        RateLimit { bytes_per_second, free_at: Duration::ZERO }
    }

    /// When the next request may be sent.
    #[must_use]
    pub fn free_at(&self) -> Duration {
        self.free_at
    }

    /// `bytes` were sent at `now`.
    pub fn sent(&mut self, now: Duration, bytes: usize) {
        if self.bytes_per_second > 0 {
            let nanoseconds = (bytes as u128 * 1_000_000_000) / u128::from(self.bytes_per_second);
            let time = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
            self.free_at = self.free_at.max(now).saturating_add(time);
        }
    }
}

/// Reads `Retry-After` (RFC 9110, 10.2.3): seconds, or a date.
#[must_use]
pub fn retry_after(text: &str, now: Wall) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = date(text)?;
    Some(Duration::from_millis(at.0.saturating_sub(now.0)))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`.
fn date(text: &str) -> Option<Wall> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let rest = text.split_once(", ")?.1.strip_suffix(" GMT")?;
    let mut parts = rest.split(' ');
    let (day, month, year, time) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    Wall::parse(&format!("{year}-{month:02}-{day}T{time}.000Z")).filter(|_| parts.next().is_none())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn pauses_double_up_to_the_longest_and_reset_after_success() {
        let mut backoff = Backoff::new(42, MINUTE);
        for round in 0..2 {
            for step in 0..40 {
                let whole = FIRST.saturating_mul(1 << step.min(20)).min(MINUTE);
                let pause = backoff.pause(Failure::Transient, None);
                assert!(pause >= whole / 2 && pause <= whole, "{round} {step}: {pause:?} of {whole:?}");
            }
            backoff.reset();
        }
    }

    #[test]
    fn jitter_spreads_the_retries_of_a_fleet() {
        let pauses = (0..10_000_u64).map(|agent| {
            let mut backoff = Backoff::new(agent.wrapping_mul(0x9e37_79b9_7f4a_7c15), MINUTE);
            for _ in 0..10 {
                let _ = backoff.pause(Failure::Transient, None);
            }
            backoff.pause(Failure::Transient, None)
        });
        // Over the 30 s in which they come back, no second has twice its share.
        let mut seconds = [0; 61];
        pauses.for_each(|pause| seconds[usize::try_from(pause.as_secs()).unwrap()] += 1);
        assert!(seconds.iter().all(|count| *count < 2 * 10_000 / 30), "{seconds:?}");
    }

    #[test]
    fn retry_after_is_honoured_up_to_a_bound() {
        let mut backoff = Backoff::new(7, MINUTE);
        for seconds in [1, 5, 90, 3000] {
            let asked = Duration::from_secs(seconds);
            for failure in [Failure::Transient, Failure::Persistent] {
                assert!(backoff.pause(failure, Some(asked)) >= asked);
            }
        }
        let pause = backoff.pause(Failure::Transient, Some(Duration::from_secs(u64::MAX / 4)));
        assert!(pause <= RETRY_AFTER_MAX * 2, "{pause:?}");
    }

    #[test]
    fn a_persistent_failure_is_retried_slowly_from_the_first() {
        let pause = Backoff::new(7, MINUTE).pause(Failure::Persistent, None);
        assert!(pause >= SLOW / 2 && pause <= SLOW);
    }

    #[test]
    fn the_rate_limit_spaces_requests() {
        let mut rate_limit = RateLimit::new(1000);
        let mut now = Duration::from_secs(100);
        for _ in 0..10 {
            now = now.max(rate_limit.free_at());
            rate_limit.sent(now, 500);
        }
        assert_eq!(rate_limit.free_at(), Duration::from_secs(105), "5000 bytes in 5 s");
        rate_limit.sent(Duration::from_secs(200), 100);
        assert_eq!(
            rate_limit.free_at(),
            Duration::from_millis(200_100),
            "time that was not used is not saved up"
        );
        let mut none = RateLimit::new(0);
        none.sent(now, usize::MAX);
        assert_eq!(none.free_at(), Duration::ZERO);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = Wall::parse("1994-11-06T08:49:30.000Z").unwrap();
        assert_eq!(retry_after("120", now), Some(Duration::from_secs(120)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:37 GMT", now), Some(Duration::from_secs(7)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:00:00 GMT", now), Some(Duration::ZERO), "in the past");
        for wrong in ["", "soon", "-1", "Sun, 06 Foo 1994 08:49:37 GMT", "1.5"] {
            assert_eq!(retry_after(wrong, now), None, "{wrong}");
        }
    }
}

//! Which CPUs are online, as /sys tells it.

use std::io;
use std::path::Path;

/// As many as any kernel is built for.
const CPUS_MAX: u32 = 8192;

/// The numbers of the CPUs that are online.
pub(crate) fn online(sys: &Path) -> io::Result<Vec<u32>> {
    let cpus = list(&std::fs::read_to_string(sys.join("devices/system/cpu/online"))?);
    if cpus.is_empty() { Err(io::ErrorKind::InvalidData.into()) } else { Ok(cpus) }
}

/// The same to size programs by, and to try one; the first CPU where /sys does not tell.
pub(crate) fn online_or_first(sys: &Path) -> Vec<u32> {
    online(sys).unwrap_or_else(|_| vec![0])
}

/// `0-3,8`.
pub(crate) fn list(text: &str) -> Vec<u32> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse::<u32>().ok()?..=last.parse::<u32>().ok()?.min(CPUS_MAX))
    };
    // Named again and again they are still no more.
    text.trim().split(',').filter_map(range).flatten().take(CPUS_MAX as usize).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_cpus_is_read() {
        assert_eq!(list("0-3,8\n"), [0, 1, 2, 3, 8]);
        assert_eq!(list("0\n"), [0]);
        assert!(list("").is_empty() && list("x-y,").is_empty());
        assert!(list("0-4294967295").len() < 10_000);
    }
}

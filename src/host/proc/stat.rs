//! /proc/stat: CPU times of the whole host and the counts that follow them.

use crate::host::text::{decimal, fields, keyed, lines, ticks};
use crate::host::{CpuTimes, HostCpu};

/// Reads the file. Modes that an old kernel does not know are zero.
#[must_use]
pub fn parse(text: &[u8]) -> Option<HostCpu> {
    let cpus = lines(text).filter(|line| {
        let number = fields(line).next().and_then(|name| name.strip_prefix(b"cpu"));
        number.and_then(decimal).is_some()
    });
    Some(HostCpu {
        times: lines(text).find_map(times)?,
        cpus: u32::try_from(cpus.count()).ok()?,
        running: keyed(text, b"procs_running")?,
        blocked: keyed(text, b"procs_blocked")?,
    })
}

fn times(line: &[u8]) -> Option<CpuTimes> {
    let mut fields = fields(line);
    if fields.next()? != b"cpu" {
        return None;
    }
    let mut next = || fields.next().and_then(decimal).map(ticks);
    Some(CpuTimes {
        user: next()?,
        nice: next()?,
        system: next()?,
        idle: next()?,
        iowait: next().unwrap_or_default(),
        irq: next().unwrap_or_default(),
        softirq: next().unwrap_or_default(),
        steal: next().unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn modes_and_counts_are_read() {
        let cpu = parse(include_bytes!("../../../fuzz/corpus/proc_stat/6.18")).expect("a real file");
        assert_eq!((cpu.cpus, cpu.running, cpu.blocked), (2, 3, 1));
        assert_eq!(cpu.times.user, Duration::from_millis(162_100));
        assert_eq!(cpu.times.idle, Duration::from_millis(1_670_200));
        assert_eq!(cpu.times.softirq, Duration::from_millis(830));
        assert_eq!(cpu.times.steal, Duration::from_millis(200));
    }

    #[test]
    fn an_offline_cpu_is_not_counted() {
        let cpu = parse(include_bytes!("../../../fuzz/corpus/proc_stat/offline_cpu")).expect("a real file");
        assert_eq!(cpu.cpus, 3);
    }

    #[test]
    fn a_truncated_line_is_refused() {
        assert_eq!(parse(b"cpu  1 2 3 4\ncpu0 1 2 3 4\nprocs_running 1\n"), None);
        assert_eq!(parse(b"cpu  1 2 3\nprocs_running 1\nprocs_blocked 0\n"), None);
        assert_eq!(parse(b""), None);
    }
}

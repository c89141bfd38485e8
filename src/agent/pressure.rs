//! PSI triggers (Documentation/accounting/psi.rst): the kernel wakes the loop when tasks have been
//! stalled for too long, so that a tracer looks before its time.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use crate::tracer::Pressure;

/// An armed trigger: the descriptor becomes ready with priority when it fires.
#[derive(Debug)]
pub(super) struct PsiTrigger {
    file: File,
    window: Duration,
    /// When it last led to a look.
    last: Duration,
}

impl PsiTrigger {
    /// Arms one under `proc`.
    pub(super) fn arm(proc: &Path, pressure: &Pressure) -> io::Result<PsiTrigger> {
        let path = proc.join("pressure").join(pressure.resource);
        let mut file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        let (stall, window) = (pressure.stall.as_micros(), pressure.window.as_micros());
        // The kernel wants the closing zero of a C string, and all of it in one write.
        file.write_all(format!("some {stall} {window}\0").as_bytes())?;
        Ok(PsiTrigger { file, window: pressure.window, last: Duration::ZERO })
    }

    /// For the poll, with priority interest.
    pub(super) fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Whether a look is due now that it fired: once per window.
    pub(super) fn due(&mut self, now: Duration) -> bool {
        let due = now.saturating_sub(self.last) >= self.window;
        if due {
            self.last = now;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_leads_to_one_look_in_each_window() {
        let file = File::open("/dev/null").expect("there is always /dev/null");
        let mut trigger = PsiTrigger { file, window: Duration::from_secs(2), last: Duration::ZERO };
        let looks: Vec<u64> = (2..10).filter(|now| trigger.due(Duration::from_secs(*now))).collect();
        assert_eq!(looks, [2, 4, 6, 8]);
    }

    #[test]
    fn the_kernel_takes_the_triggers_of_all_tracers() {
        if !Path::new("/proc/pressure").exists() {
            eprintln!("SKIPPED: this kernel has no PSI (CONFIG_PSI, psi=1)");
            return;
        }
        for pressure in crate::tracer::TRACERS.iter().filter_map(|spec| spec.pressure) {
            PsiTrigger::arm(Path::new("/proc"), &pressure).expect("armed");
        }
        let missing = PsiTrigger::arm(
            Path::new("/nowhere"),
            &Pressure { resource: "io", stall: Duration::from_millis(300), window: Duration::from_secs(2) },
        );
        assert_eq!(missing.expect_err("there is none").kind(), io::ErrorKind::NotFound);
    }
}

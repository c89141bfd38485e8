//! Each program attached for a moment, for whoever asks before there is an anomaly.

use std::sync::PoisonError;
use std::time::Duration;

use super::Captures;

/// Of no account: no device is watched meanwhile.
const STALL: Duration = Duration::from_secs(1);

impl Captures {
    /// Attaches every program and detaches it again. What became of each is told by `bpf::each_program`,
    /// and so is why one was refused.
    pub fn try_attach(&self) {
        for sampler in [&self.stacks, &self.faults].into_iter().flatten() {
            let _ = sampler.program.lock().unwrap_or_else(PoisonError::into_inner).arm();
        }
        if let Ok((waiting, _)) = &self.waits {
            let _ = waiting.program.lock().unwrap_or_else(PoisonError::into_inner).arm();
        }
        if let Ok((tracing, _)) = &self.io
            && let Ok(mut armed) = tracing.program.lock().unwrap_or_else(PoisonError::into_inner).arm(STALL)
        {
            let _ = armed.attach().and_then(|()| armed.attach_waits());
        }
    }
}

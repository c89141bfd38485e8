//! How captures end, by name: labels of `onset_captures_total`.

use crate::capture_data::Refusal;

/// How captures ended, by name.
pub(super) const OUTCOMES: [&str; 6] = ["done", "busy", "unsupported", "over_budget", "gone", "failed"];

/// The place in `OUTCOMES` of a capture that was done, or was refused.
pub(super) fn outcome(refusal: Option<Refusal>) -> usize {
    match refusal {
        None => 0,
        Some(Refusal::Busy) => 1,
        Some(Refusal::Unsupported(_)) => 2,
        Some(Refusal::OverBudget) => 3,
        Some(Refusal::Gone) => 4,
        Some(Refusal::Failed(_)) => 5,
    }
}

/// How a capture ended that was done, or was refused.
pub(super) fn outcome_name(refusal: Option<Refusal>) -> &'static str {
    OUTCOMES.get(outcome(refusal)).copied().unwrap_or_default()
}

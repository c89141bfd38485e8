//! What became of each program: whether the kernel took it, and whether it could be attached when it was
//! last tried. What a program measures is unknown where it does not stand, not zero, and this says why.

use std::fmt::Display;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How a program stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// The kernel took it; it is attached when it is needed.
    Loaded,
    /// It runs.
    Attached,
    /// Another one does its work on this kernel.
    Unneeded,
    /// The kernel has nothing of that name to attach it to: a module may bring it later.
    Absent,
    /// The kernel did not take it, or did not attach it.
    Refused,
}

impl Standing {
    /// As metrics and status have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Standing::Loaded => "loaded",
            Standing::Attached => "attached",
            Standing::Unneeded => "unneeded",
            Standing::Absent => "absent",
            Standing::Refused => "refused",
        }
    }
}

/// A program and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Program {
    /// Its name, as in `onset_bpf_run_seconds_total`.
    pub program: &'static str,
    /// How it stands.
    #[serde(rename = "state")]
    pub standing: Standing,
    /// Why it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Box<str>>,
    /// To how many CPUs or events it is attached.
    #[serde(skip)]
    links: u32,
}

static PROGRAMS: Mutex<Vec<Program>> = Mutex::new(Vec::new());

fn programs() -> MutexGuard<'static, Vec<Program>> {
    PROGRAMS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Every program that was tried since start, in the order of that.
pub fn each_program(each: &mut dyn FnMut(&Program)) {
    programs().iter().for_each(each);
}

fn note(program: &'static str, change: impl FnOnce(&mut Program)) {
    let mut all = programs();
    if let Some(known) = all.iter_mut().find(|known| known.program == program) {
        return change(known);
    }
    let mut new = Program { program, standing: Standing::Unneeded, reason: None, links: 0 };
    change(&mut new);
    all.push(new);
}

/// Notes that it stands so.
pub(super) fn stands(program: &'static str, standing: Standing) {
    note(program, |known| (known.standing, known.reason) = (standing, None));
}

/// Notes whether the kernel took these programs, and hands on what was loaded.
pub(super) fn loaded<T, E: Display>(names: &[&'static str], done: Result<T, E>) -> Result<T, E> {
    for name in names {
        match &done {
            Ok(_) => stands(name, Standing::Loaded),
            Err(why) => refused(name, why),
        }
    }
    done
}

/// Notes that the kernel refused it.
pub(super) fn refused(program: &'static str, why: &dyn Display) {
    let why = why.to_string().into_boxed_str();
    note(program, |known| (known.standing, known.reason) = (Standing::Refused, Some(why)));
}

/// Notes that it was attached once more.
pub(super) fn attached(program: &'static str) {
    note(program, |known| {
        known.links += 1;
        (known.standing, known.reason) = (Standing::Attached, None);
    });
}

/// Notes that one of its links is gone.
pub(super) fn detached(program: &'static str) {
    note(program, |known| {
        known.links = known.links.saturating_sub(1);
        // One that was refused on some CPU stays so until it is tried again.
        if known.links == 0 && known.standing == Standing::Attached {
            known.standing = Standing::Loaded;
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(program: &str) -> Option<(Standing, Option<Box<str>>)> {
        let mut found = None;
        each_program(&mut |known| {
            if known.program == program {
                found = Some((known.standing, known.reason.clone()));
            }
        });
        found
    }

    #[test]
    fn a_program_counts_as_attached_until_its_last_link_is_dropped() {
        const ONE: &str = "of two links";
        assert_eq!(of(ONE), None, "nobody tried it");
        assert_eq!(loaded(&[ONE], Ok::<_, &str>(7)), Ok(7));
        assert_eq!(of(ONE), Some((Standing::Loaded, None)));
        attached(ONE);
        attached(ONE);
        detached(ONE);
        assert_eq!(of(ONE), Some((Standing::Attached, None)));
        detached(ONE);
        assert_eq!(of(ONE), Some((Standing::Loaded, None)));
    }

    #[test]
    fn a_refused_program_keeps_its_reason_until_it_attaches() {
        const ONE: &str = "refused at first";
        assert_eq!(loaded(&[ONE], Err::<(), _>("no BTF")), Err("no BTF"));
        assert_eq!(of(ONE), Some((Standing::Refused, Some("no BTF".into()))));
        attached(ONE);
        assert_eq!(of(ONE), Some((Standing::Attached, None)));
        refused(ONE, &"no room");
        detached(ONE);
        assert_eq!(of(ONE), Some((Standing::Refused, Some("no room".into()))));
    }
}

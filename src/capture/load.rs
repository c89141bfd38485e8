//! What is loaded once, at start: a program for each kind of capture, as this host allows it.

use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};

use super::answer::Wake;
use super::resident::Residents;
use super::stacks::{Sampled, Sampler};
use super::tasks::{Looker, Walks};
use super::waits::Waiting;
use super::{Captures, Looks, OPEN_ALL_MAX, OPEN_MAX, io};
use crate::bpf::{self, Followed, Meter};
use crate::config;
use crate::inbox::Inbox;
use crate::starter::Starter;
use crate::sys;

impl Captures {
    /// Loads the programs; what cannot be loaded here is unsupported, with a reason. `wake` is
    /// called from helper threads when an answer waits. Containers are told apart in the unified
    /// hierarchy or in v1's cpu hierarchy; so many are followed at once.
    pub fn load(paths: &config::Paths, unified: bool, capacity: usize, wake: Wake) -> Captures {
        let mut meter = Meter::default();
        let followed = bpf::btf(&paths.sys).and_then(|()| Followed::create(capacity)).map_err(sentence);
        let cpus = bpf::cpus::online_or_first(&paths.sys);
        let site = followed.as_ref().map_err(|why| *why);
        let site = site.map(|followed| bpf::Site { sys: &paths.sys, followed, unified, cpus: &cpus });
        let [stacks, faults] = samplers(&site, &paths.proc, &mut meter);
        let tasks = followed.as_ref().map_err(|why| *why).and_then(|followed| {
            let release = release(&paths.proc);
            bpf::Tasks::load(&paths.sys, followed, unified, release, &mut meter).map_err(sentence)
        });
        let io = followed.as_ref().map_err(|why| *why).and_then(|followed| {
            let program = bpf::Io::load(paths, followed, unified, &mut meter).map_err(sentence)?;
            let lost = program.lost().map_err(sentence)?;
            let (proc, sys) = (paths.proc.as_path().into(), paths.sys.as_path().into());
            let (program, inbox) = (Mutex::new(program), Inbox::new(OPEN_MAX));
            Ok((Arc::new(io::Tracing { program, inbox, proc, sys }), lost))
        });
        let waits = followed.as_ref().map_err(|why| *why).and_then(|followed| {
            let release = release(&paths.proc);
            let program =
                bpf::Waits::load(&paths.sys, followed, unified, release, &mut meter).map_err(sentence)?;
            let lost = program.lost().map_err(sentence)?;
            let (inbox, root) = (Inbox::new(OPEN_MAX), Mutex::new(paths.cgroup.clone()));
            Ok((Arc::new(Waiting { program: Mutex::new(program), inbox, root }), lost))
        });
        let proc: Box<Path> = paths.proc.as_path().into();
        let tasks = match tasks {
            Ok(bpf::Tasks { passers, stuck }) => {
                let inbox = Inbox::new(OPEN_MAX);
                Looks::Iterator {
                    passers,
                    looker: Arc::new(Looker { inbox, stuck: Mutex::new(stuck), proc }),
                }
            }
            Err(why) => Looks::Walks { walks: Arc::new(Walks::new(&proc, unified, capacity, OPEN_MAX)), why },
        };
        let (to, from) = sync_channel(OPEN_ALL_MAX);
        Captures {
            followed: followed.ok(),
            not_followed: 0,
            stacks,
            faults,
            residents: Arc::new(Residents::new(&paths.proc)),
            tasks,
            unified,
            waits,
            io,
            meter,
            sys: paths.sys.as_path().into(),
            open: Vec::with_capacity(OPEN_ALL_MAX),
            to,
            from,
            wake,
            starter: Starter::new(),
        }
    }
}

/// What samples for `Kind::Stacks` and for `Kind::Faults`.
type Samplers = [Result<Arc<Sampler>, &'static str>; 2];

fn samplers(site: &Result<bpf::Site<'_>, &'static str>, proc: &Path, meter: &mut Meter) -> Samplers {
    let page_bytes = page_bytes();
    [Sampled::Running, Sampled::Faults { page_bytes }].map(|sampled| {
        let site = site.as_ref().map_err(|why| *why)?;
        let program = match sampled {
            Sampled::Running => bpf::Stacks::by_clock(site, meter),
            Sampled::Faults { page_bytes } => bpf::Stacks::by_faults(site, page_bytes, meter),
        };
        program.and_then(|program| Sampler::new(program, sampled, proc)).map(Arc::new).map_err(sentence)
    })
}

pub(super) fn page_bytes() -> u32 {
    sys::page_size().and_then(|bytes| u32::try_from(bytes).ok()).unwrap_or(4096)
}

/// A reason, to be kept for the life of the process: there is at most one for each program.
pub(super) fn sentence(error: bpf::Error) -> &'static str {
    String::leak(error.to_string())
}

/// The kernel's release: `6.18.44-generic` is (6, 18).
#[must_use]
pub fn release(proc: &Path) -> Option<(u32, u32)> {
    release_of(&std::fs::read_to_string(proc.join("sys/kernel/osrelease")).ok()?)
}

pub(super) fn release_of(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|letter: char| !letter.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

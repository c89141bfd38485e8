//! Sampled stacks, by a clock or by page faults. The kernel adds them up by container, process and
//! hash; the frames of each come once. Two maps take turns: one counts while the other is read, so
//! each count belongs to the time between two turns. The kernel takes a turn that is due by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd as _, AsRawFd as _, IntoRawFd as _, RawFd};
use std::path::Path;
use std::time::Duration;

use libbpf_rs::skel::{OpenSkel as _, SkelBuilder as _};
use libbpf_rs::{Link, MapCore, MapFlags, MapHandle};

use super::error::{Error, attempt};
use super::failed::{Attached, Failed, counted};
use super::lost::{Lost, number_at};
use super::meter::Meter;
use super::programs::{self, Standing};
use super::ring::{Drained, Ring};
use super::sent::{Count, StackRecord};
use super::site::Site;
use super::skeletons::faults::{FaultsSkel, FaultsSkelBuilder};
use super::skeletons::stacks::{StacksSkel, StacksSkelBuilder};
use super::{cpus, perf, place, sums};
use crate::host::Key;
use crate::layout::stacks as layout;
use crate::sys;

/// Samples a second on each CPU: not 100, so that what happens each 10 ms is neither always nor
/// never seen.
pub const HZ: u32 = 99;

/// One page fault in so many is sampled: a prime, so that a loop that takes turns between some
/// places is seen at all of them.
pub const FAULTS_EACH: u32 = 61;

const CLOCK: perf::Event = perf::Event::Clock { hz: HZ };
const FAULTS: perf::Event = perf::Event::Faults { each: FAULTS_EACH };

/// Where the kernel says whether processes may have huge pages.
const HUGE_PAGES: &str = "kernel/mm/transparent_hugepage";

const WHAT: &str = "the stacks program";

/// The programs, as metrics have them.
const BY_CLOCK: &str = "stacks";
const BY_FAULTS: &str = "faults";
const LARGE_PAGES: &str = "large_pages";

/// Counts that each CPU may add in a second without a turn.
const COUNTS_EACH: u32 = 128;
const COUNTS_LEAST: u32 = 1024;

/// Room for what the kernel may hold of a map beyond what it was made for.
const COUNTS_SPARE: u32 = 1024;

/// A turn that the kernel does not take by itself.
const NEVER: Duration = Duration::from_nanos(u64::MAX);

// Both programs share bpf/sampled.h, and userspace reads what either sends by the types of one.
const _: fn(crate::layout::faults::Stack) -> layout::Stack = |same| same;

/// Stacks of each CPU that need not be sent again.
const KNOWN_EACH: u32 = 256;
const KNOWN_LEAST: u32 = 4096;

/// Ring for the new stacks of each CPU: a usual one takes 800 bytes, the longest 5 KiB.
const RING_EACH: u32 = 16 << 10;
const RING_LEAST: u32 = 512 << 10;
const RING_MOST: u32 = 16 << 20;

/// A loaded program that samples stacks.
pub struct Stacks {
    loaded: Loaded,
    maps: Maps,
    sys: Box<Path>,
    runs: u64,
}

/// What is sampled by.
enum Loaded {
    Clock(StacksSkel<'static>),
    /// Large pages are sampled too where processes may have them.
    Faults(FaultsSkel<'static>, LargePages),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum LargePages {
    Never,
    Sampled,
}

/// What all of bpf/sampled.h's programs have.
struct Maps {
    control: MapHandle,
    targets: MapHandle,
    frames: MapHandle,
    counts_even: MapHandle,
    counts_odd: MapHandle,
    lost: MapHandle,
    lost_in_turn: MapHandle,
}

/// Fits an open skeleton of a program of bpf/sampled.h to this host: each has a type of its own.
macro_rules! fit {
    ($open:ident, $site:ident) => {
        let many = u32::try_from($site.cpus.len()).unwrap_or(u32::MAX);
        let each = |each: u32, least: u32| many.saturating_mul(each).max(least);
        $open.maps.containers.reuse_fd($site.followed.as_fd())?;
        $open.maps.counts_even.set_max_entries(each(COUNTS_EACH, COUNTS_LEAST))?;
        $open.maps.counts_odd.set_max_entries(each(COUNTS_EACH, COUNTS_LEAST))?;
        $open.maps.known.set_max_entries(each(KNOWN_EACH, KNOWN_LEAST))?;
        let ring = each(RING_EACH, RING_LEAST).min(RING_MOST).next_power_of_two();
        $open.maps.frames.set_max_entries(ring)?;
        if let Some(knobs) = &mut $open.maps.rodata_data {
            knobs.unified = $site.unified;
        }
    };
}

/// The maps of a loaded skeleton.
macro_rules! maps {
    ($skeleton:ident) => {
        Maps {
            control: MapHandle::try_from(&$skeleton.maps.control)?,
            targets: MapHandle::try_from(&$skeleton.maps.targets)?,
            frames: MapHandle::try_from(&$skeleton.maps.frames)?,
            counts_even: MapHandle::try_from(&$skeleton.maps.counts_even)?,
            counts_odd: MapHandle::try_from(&$skeleton.maps.counts_odd)?,
            lost: MapHandle::try_from(&$skeleton.maps.lost)?,
            lost_in_turn: MapHandle::try_from(&$skeleton.maps.lost_in_turn)?,
        }
    };
}

impl Stacks {
    /// Loads the program that samples what runs on each CPU, `HZ` times a second.
    pub fn by_clock(site: &Site<'_>, meter: &mut Meter) -> Result<Stacks, Error> {
        let done = site.try_event(CLOCK).and_then(|()| {
            attempt(WHAT, || {
                let mut open = StacksSkelBuilder::default().open(place())?;
                fit!(open, site);
                let skeleton = open.load()?;
                let maps = maps!(skeleton);
                Ok((skeleton, maps))
            })
        });
        let (skeleton, maps) = programs::loaded(&[BY_CLOCK], done)?;
        meter.add(BY_CLOCK, skeleton.progs.sample_stack.as_fd());
        Ok(Stacks { loaded: Loaded::Clock(skeleton), maps, sys: site.sys.into(), runs: 0 })
    }

    /// Loads the program that samples page faults; its counts are in bytes.
    pub fn by_faults(site: &Site<'_>, page_bytes: u32, meter: &mut Meter) -> Result<Stacks, Error> {
        let large = if site.sys.join(HUGE_PAGES).exists() { LargePages::Sampled } else { LargePages::Never };
        let done = site.try_event(FAULTS).and_then(|()| load_faults(site, page_bytes, large));
        let (skeleton, maps) = programs::loaded(&[BY_FAULTS, LARGE_PAGES], done)?;
        meter.add(BY_FAULTS, skeleton.progs.sample_fault.as_fd());
        if large == LargePages::Sampled {
            meter.add(LARGE_PAGES, skeleton.progs.sample_large_page.as_fd());
        } else {
            programs::stands(LARGE_PAGES, Standing::Unneeded);
        }
        Ok(Stacks { loaded: Loaded::Faults(skeleton, large), maps, sys: site.sys.into(), runs: 0 })
    }

    /// Begins to sample, nothing at first.
    pub fn arm(&mut self) -> Result<Armed<'_>, Error> {
        self.runs += 1;
        let ring = attempt(WHAT, || Ring::open(&self.maps.frames))?;
        let mut armed = Armed {
            program: self,
            ring,
            cpus: BTreeMap::new(),
            _rest: None,
            side: 0,
            due: NEVER,
            end: Duration::ZERO,
            host: false,
            targets: BTreeSet::new(),
        };
        armed.forget_old()?;
        armed.control()?;
        armed.attach_online()?;
        armed._rest = armed.program.loaded.attach_rest().transpose()?;
        Ok(armed)
    }

    /// The count of samples that the kernel could not keep, to be read from any thread.
    pub fn lost(&self) -> Result<Lost, Error> {
        attempt(WHAT, || MapHandle::try_from(&self.maps.lost)).map(Lost)
    }
}

fn load_faults(
    site: &Site<'_>,
    page_bytes: u32,
    large: LargePages,
) -> Result<(FaultsSkel<'static>, Maps), Error> {
    attempt("the faults program", || {
        let mut open = FaultsSkelBuilder::default().open(place())?;
        fit!(open, site);
        if let Some(knobs) = &mut open.maps.rodata_data {
            knobs.faults_each = FAULTS_EACH;
            knobs.page_bytes = page_bytes;
        }
        open.progs.sample_large_page.set_autoload(large == LargePages::Sampled);
        let skeleton = open.load()?;
        let maps = maps!(skeleton);
        Ok((skeleton, maps))
    })
}

impl Loaded {
    fn event(&self) -> perf::Event {
        match self {
            Loaded::Clock(_) => CLOCK,
            Loaded::Faults(..) => FAULTS,
        }
    }

    /// The program that the event drives.
    fn name(&self) -> &'static str {
        match self {
            Loaded::Clock(_) => BY_CLOCK,
            Loaded::Faults(..) => BY_FAULTS,
        }
    }

    fn attach_event(&self, event: RawFd) -> Result<Link, libbpf_rs::Error> {
        match self {
            Loaded::Clock(skeleton) => skeleton.progs.sample_stack.attach_perf_event(event),
            Loaded::Faults(skeleton, _) => skeleton.progs.sample_fault.attach_perf_event(event),
        }
    }

    /// What is sampled beside the perf event, if anything is.
    fn attach_rest(&self) -> Option<Result<Attached, Error>> {
        match self {
            Loaded::Faults(skeleton, LargePages::Sampled) => {
                Some(Attached::of(LARGE_PAGES, attempt(WHAT, || skeleton.progs.sample_large_page.attach())))
            }
            Loaded::Clock(_) | Loaded::Faults(_, LargePages::Never) => None,
        }
    }
}

/// The program while it samples; it stops when this is dropped.
pub struct Armed<'p> {
    program: &'p mut Stacks,
    ring: Ring,
    /// What each CPU is sampled by.
    cpus: BTreeMap<u32, Attached>,
    /// What is sampled beside the perf events.
    _rest: Option<Attached>,
    side: u32,
    due: Duration,
    end: Duration,
    host: bool,
    targets: BTreeSet<u64>,
}

impl Armed<'_> {
    /// Samples the CPUs that came online too. Where the list of them cannot be read all stays as it is. The event of one that went offline never comes again, not
    /// even when its CPU does.
    pub fn attach_online(&mut self) -> Result<(), Error> {
        let Stacks { loaded, sys, .. } = &*self.program;
        let event = loaded.event();
        let online = cpus::online(sys).map_err(Error::Cpus)?;
        self.cpus.retain(|cpu, _| online.contains(cpu));
        for cpu in online {
            if self.cpus.contains_key(&cpu) {
                continue;
            }
            let opened = match perf::open(cpu, event) {
                Ok(opened) => opened,
                // It went offline meanwhile, and has nothing to sample.
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => continue,
                Err(source) => {
                    programs::refused(loaded.name(), &source);
                    return Err(Error::Perf { event: event.name(), source });
                }
            };
            let link = attempt(WHAT, || loaded.attach_event(opened.as_raw_fd()));
            let link = Attached::of(loaded.name(), link)?;
            // The link closes it.
            let _ = opened.into_raw_fd();
            self.cpus.insert(cpu, link);
        }
        Ok(())
    }

    /// Samples the whole host, or these containers only.
    pub fn aim(&mut self, host: bool, containers: impl IntoIterator<Item = Key>) -> Result<(), Error> {
        let wanted: BTreeSet<u64> = containers.into_iter().map(Key::to_bits).collect();
        let targets = &self.program.maps.targets;
        attempt("a target of the stacks program", || {
            for gone in self.targets.difference(&wanted) {
                targets.delete(&gone.to_ne_bytes())?;
            }
            for new in wanted.difference(&self.targets) {
                targets.update(&new.to_ne_bytes(), &1_u64.to_ne_bytes(), MapFlags::ANY)?;
            }
            Ok(())
        })?;
        self.targets = wanted;
        self.host = host;
        self.control()
    }

    /// When the time ends that a turn at `now` ends: before it, if a turn, or the end of all, was due.
    #[must_use]
    pub fn ends_at(&self, now: Duration) -> Duration {
        let end = if self.end.is_zero() { now } else { self.end };
        now.min(self.due).min(end)
    }

    /// Ends the time that the next `counts` are of, and begins another at `now`. The kernel ends that one at
    /// `due` by itself, and samples nothing from `end` on, all by the monotonic clock. When the time ended.
    pub fn turn(&mut self, now: Duration, due: Option<Duration>, end: Duration) -> Result<Duration, Error> {
        let ended = self.ends_at(now);
        self.side ^= 1;
        self.due = due.unwrap_or(NEVER);
        self.end = end;
        self.control()?;
        // It was due before the kernel had it: what is read now would grow until the next turn.
        if sys::monotonic() >= self.due {
            self.due = NEVER;
            self.control()?;
        }
        Ok(ended)
    }

    /// Hands out stacks that are new, at most `budget`.
    pub fn stacks(&mut self, budget: u32, mut each: impl FnMut(StackRecord)) -> Drained {
        self.ring.drain(budget, |record| {
            if let Some(stack) = StackRecord::parse(record) {
                each(stack);
            }
        })
    }

    /// Hands out what was counted between the last two turns, each once. How many samples of that time
    /// found no room.
    pub fn counts(&mut self, mut each: impl FnMut(Count)) -> Result<u64, Error> {
        let before = self.side ^ 1;
        let Maps { counts_even, counts_odd, lost_in_turn, .. } = &self.program.maps;
        let counts = if before == 0 { counts_even } else { counts_odd };
        let room = counts.max_entries().saturating_add(COUNTS_SPARE);
        attempt("reading counts", || {
            sums::take(counts, room, |key, sum| {
                if let Some(count) = Count::parse(key, sum) {
                    each(count);
                }
            })?;
            let lost = number_at(lost_in_turn, before);
            lost_in_turn.update(&before.to_ne_bytes(), &0_u64.to_ne_bytes(), MapFlags::ANY)?;
            Ok(lost)
        })
    }

    /// What an earlier run left behind.
    fn forget_old(&mut self) -> Result<(), Error> {
        while self.ring.drain(u32::MAX, |_| {}) == Drained::More {}
        for _ in 0..2 {
            self.side ^= 1;
            self.counts(|_| {})?;
        }
        let targets = &self.program.maps.targets;
        let old: Vec<_> = targets.keys().collect();
        for key in old {
            counted(Failed::Write, "an old target", targets.delete(&key));
        }
        Ok(())
    }

    fn control(&self) -> Result<(), Error> {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let value = layout::Control {
            // bpf/sampled.h: the lowest bit is the side's.
            turn: nanos(self.due) & !1 | u64::from(self.side),
            end: nanos(self.end),
            seed: self.program.runs,
            host: self.host.into(),
            unused: 0,
        };
        let control = &self.program.maps.control;
        attempt("steering the stacks program", || {
            control.update(&0_u32.to_ne_bytes(), &value.bytes(), MapFlags::ANY)
        })
    }
}

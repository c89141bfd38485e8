//! Loads tracers' hooks on a thread that is there while some are to be loaded: the verifier takes longer
//! over one than a turn of the loop may last. Each order is answered exactly once.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Instant;

use super::load::sentence;
use super::open_request::{BROKEN, Wake};
use crate::bpf::{Followed, Hook, KnobValue, Meter, Site};
use crate::thread_spawner::{ThreadSpawner, Worker};
use crate::work_queue::{WorkQueue, WorkerGuard};

/// Orders that may be open at once; a tracer has one at most.
const ORDERS_MAX: usize = 64;

/// A hook that is attached, or why it cannot be.
pub struct LoadedHook {
    /// Which tracer's.
    pub slot: usize,
    /// The values that it was to be given.
    pub knobs: Vec<KnobValue>,
    /// The hook.
    pub hook: Result<Hook, &'static str>,
    /// The programs' own descriptors.
    meter: Meter,
}

/// Where orders are handed in, and answers come out.
pub(super) struct HookLoader {
    bench: Arc<Bench>,
    to: SyncSender<LoadedHook>,
    from: Receiver<LoadedHook>,
    wake: Wake,
}

impl HookLoader {
    /// One whose hooks have this map of containers; or why there is none.
    pub(super) fn new(
        followed: Result<Arc<Followed>, &'static str>,
        unified: bool,
        sys: &Path,
        wake: Wake,
    ) -> HookLoader {
        let (to, from) = sync_channel(ORDERS_MAX);
        let bench = Bench { queue: WorkQueue::new(ORDERS_MAX), followed, unified, sys: sys.into() };
        HookLoader { bench: Arc::new(bench), to, from, wake }
    }

    /// Loads a hook at once, on this thread.
    pub(super) fn load(
        &self,
        name: &'static str,
        knobs: Vec<KnobValue>,
        meter: &mut Meter,
    ) -> Result<Hook, &'static str> {
        self.bench.load(name, knobs, meter)
    }

    /// Has a hook loaded for the tracer of this slot.
    pub(super) fn order(
        &self,
        spawner: &ThreadSpawner,
        slot: usize,
        name: &'static str,
        knobs: Vec<KnobValue>,
    ) {
        let (to, wake) = (self.to.clone(), Arc::clone(&self.wake));
        spawner.push(&self.bench, Order { slot, name, knobs: Some(knobs), to, wake });
    }

    /// The next answer, if one waits. Its programs are counted in with `meter`.
    pub(super) fn loaded(&self, meter: &mut Meter) -> Option<LoadedHook> {
        let mut loaded = self.from.try_recv().ok()?;
        meter.take_in(&mut loaded.meter);
        Some(loaded)
    }

    /// Tells the thread to leave, and waits for that until `deadline`.
    pub(super) fn close(&self, deadline: Instant) {
        self.bench.queue.close(deadline);
    }
}

/// Where hooks are loaded.
struct Bench {
    queue: WorkQueue<Order>,
    followed: Result<Arc<Followed>, &'static str>,
    unified: bool,
    sys: Box<Path>,
}

impl Bench {
    fn load(
        &self,
        name: &'static str,
        knobs: Vec<KnobValue>,
        meter: &mut Meter,
    ) -> Result<Hook, &'static str> {
        let followed = self.followed.as_deref().map_err(|why| *why)?;
        let site = Site { sys: &self.sys, followed, unified: self.unified, cpus: &[] };
        Hook::attach(name, &site, knobs, meter).map_err(sentence)
    }
}

impl Worker for Bench {
    type Job = Order;

    fn name(&self) -> &'static str {
        "onset-hooks"
    }

    fn queue(&self) -> &WorkQueue<Order> {
        &self.queue
    }

    fn work(&self, jobs: &mut WorkerGuard<'_, Order>) {
        jobs.each(|mut order| {
            let Some(knobs) = order.knobs.clone() else { return };
            let mut meter = Meter::default();
            let hook = self.load(order.name, knobs, &mut meter);
            order.answer(hook, meter);
        });
    }
}

/// What is to be loaded, until it is answered: also if it is dropped for want of a thread.
struct Order {
    slot: usize,
    name: &'static str,
    knobs: Option<Vec<KnobValue>>,
    to: SyncSender<LoadedHook>,
    wake: Wake,
}

impl Order {
    fn answer(&mut self, hook: Result<Hook, &'static str>, meter: Meter) {
        let Some(knobs) = self.knobs.take() else { return };
        // Nobody waits for it any more only when the agent leaves.
        let _ = self.to.try_send(LoadedHook { slot: self.slot, knobs, hook, meter });
        (self.wake)();
    }
}

impl Drop for Order {
    fn drop(&mut self) {
        self.answer(Err(BROKEN), Meter::default());
    }
}

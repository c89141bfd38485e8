//! Captures of where processes wait off the CPU: the kernel function that the main
//! thread of each sleeps in, read ten times a second and folded into a flame graph.

use std::collections::HashMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::backend::{Backend, Loaded, Loader, Method, OPEN_MAX, Submission};
use super::open_request::OpenRequest;
use super::session::{Programs, Session};
use crate::capture_data::{CaptureData, Refusal};
use crate::stacks::{Row, fold};
use crate::sys;
use crate::thread_spawner::Worker;
use crate::work_queue::{WorkQueue, WorkerGuard};

/// Looks a second.
const HZ: u32 = 10;

/// Different places that one request keeps; what is beyond counts as lost.
const PLACES_MAX: usize = 4096;

const PROGRAMS: Programs = Programs {
    name: "the off-CPU programs",
    refusal: Refusal::Failed("the off-CPU programs could not be attached; see onset doctor"),
};

/// The part that outlives a run.
struct OffCpu {
    queue: WorkQueue<OpenRequest>,
    proc: Box<Path>,
}

pub(super) fn load(loader: &mut Loader<'_>) -> Loaded {
    if !loader.paths.proc.join("self/wchan").exists() {
        return Err("this kernel does not tell where tasks sleep (CONFIG_KALLSYMS)");
    }
    Ok(Arc::new(OffCpu { queue: WorkQueue::new(OPEN_MAX), proc: loader.paths.proc.as_path().into() }))
}

impl Backend for OffCpu {
    fn method(&self) -> Method {
        Method { name: "/proc wchan", degraded: None }
    }

    fn submit(self: Arc<Self>, open: OpenRequest, from: &Submission<'_>) {
        from.spawner.push(&self, open);
    }

    fn close(&self, deadline: Instant) {
        self.queue.close(deadline);
    }
}

impl Worker for OffCpu {
    type Job = OpenRequest;

    fn name(&self) -> &'static str {
        "onset-offcpu"
    }

    fn queue(&self) -> &WorkQueue<OpenRequest> {
        &self.queue
    }

    fn work(&self, jobs: &mut WorkerGuard<'_, OpenRequest>) {
        PROGRAMS.serve(jobs, |jobs| {
            // A BPF program is attached here, with `?`, and the session holds it.
            OffCpuSession { proc: &self.proc, running: Vec::new() }.run(jobs);
            Ok(())
        });
    }
}

/// One request, and what was seen for it.
struct Running {
    open: OpenRequest,
    began: Instant,
    places: HashMap<Place, u64>,
    lost: u64,
}

/// A process with its name, and the function that it sleeps in.
type Place = (u32, String, String);

struct OffCpuSession<'s> {
    proc: &'s Path,
    running: Vec<Running>,
}

impl Session for OffCpuSession<'_> {
    type Job = OpenRequest;

    fn begin(&mut self, open: OpenRequest, _: &WorkerGuard<'_, OpenRequest>) {
        self.running.push(Running { open, began: Instant::now(), places: HashMap::new(), lost: 0 });
    }

    fn due(&self) -> Option<Duration> {
        (!self.running.is_empty()).then(|| Duration::from_secs(1) / HZ)
    }

    fn turn(&mut self) -> ControlFlow<()> {
        for place in sleepers(self.proc) {
            self.running.iter_mut().for_each(|running| running.count(&place));
        }
        for running in self.running.extract_if(.., |running| running.is_over()) {
            running.end();
        }
        ControlFlow::Continue(())
    }
}

impl Running {
    fn count(&mut self, place: &Place) {
        if self.places.len() < PLACES_MAX || self.places.contains_key(place) {
            *self.places.entry(place.clone()).or_default() += 1;
        } else {
            self.lost += 1;
        }
    }

    fn is_over(&self) -> bool {
        self.began.elapsed() >= self.open.lasting()
    }

    fn end(self) {
        let rows = self.places.iter().map(|((pid, comm, function), weight)| Row {
            pid: *pid,
            comm,
            weight: *weight,
            user: Vec::new(),
            kernel: vec![function],
        });
        let (began, lasted) = (sys::at(self.began), self.began.elapsed());
        self.open.finish(began, lasted, self.lost, |arena| CaptureData::Stacks(fold(arena, HZ, rows)));
    }
}

/// The main threads that sleep now. One that ends meanwhile is not there.
fn sleepers(proc: &Path) -> impl Iterator<Item = Place> {
    let place = |entry: fs::DirEntry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let read = |file: &str| fs::read_to_string(entry.path().join(file)).ok();
        // `0` is of a task that runs.
        let function = read("wchan").filter(|function| function != "0")?;
        Some((pid, read("comm")?.trim_end().to_owned(), function))
    };
    fs::read_dir(proc).into_iter().flatten().flatten().filter_map(place)
}

//! The real agent, whose config makes tracers and takes them away again. Each runs in a process of its own: it gives
//! rights away, and counts what its loop takes.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use serde_json::Value;

use super::*;
use crate::bpf::tests::root;
use crate::control::TracerStatus;
use crate::fixed_buf::FixedBuf;
use crate::http::Pages as _;
use crate::log;
use crate::tracer::tests::watch::REGISTRY;
use crate::tracer::{TEMPLATES, TRACERS};

/// In the agent's process: its folder.
const INSIDE: &str = "ONSET_TESTED_IN";

const PATIENCE: Duration = Duration::from_secs(30);

thread_local! {
    static TAKEN: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, which counts what each thread takes.
struct Counting;

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        TAKEN.set(TAKEN.get() + 1);
        // SAFETY: the caller's promises are the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are the same.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Runs `inside` in a process of its own, with a folder that is there as long.
fn alone(test: &str, inside: impl FnOnce(&Path)) {
    if let Some(folder) = std::env::var_os(INSIDE) {
        return inside(Path::new(&folder));
    }
    if !root() {
        return;
    }
    // Short: the path of a socket in it has to fit its address.
    static FOLDERS: AtomicU32 = AtomicU32::new(0);
    let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("onset-agent-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    let name = format!("agent::tests::{test}");
    let output = command.args(["--exact", &name, "--nocapture"]).env(INSIDE, &folder).output();
    std::fs::remove_dir_all(&folder).expect("it is there");
    let output = output.expect("a process");
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(output.status.success() && out.contains("1 passed"), "{out}\n{err}");
}

/// An agent, one turn at a time, whose own tracers are off.
struct Tested {
    agent: Agent,
    events: Events,
    file: PathBuf,
    dir: PathBuf,
}

const LOAD: &str = "[[watch]]\nname = \"load\"\nreading = \"host_load\"\nabove = 1e9\nevery = \"100ms\"\n";
const FULL: &str = "[[watch]]\nname = \"full\"\nreading = \"host_memory_used_percent\"\nabove = 0\n\
                    every = \"100ms\"\nsustained_samples = 1\nevidence = \"tasks\"\n";

impl Tested {
    fn start(folder: &Path) -> Tested {
        let (file, dir) = (folder.join("onset.toml"), folder.join("log"));
        write(&file, "");
        let config = Config::load(Some(&file), REGISTRY).expect("valid");
        let agent = Agent::start_with(config, Some(file.clone()), REGISTRY).expect("ready");
        Tested { agent, events: Events::with_capacity(EVENTS_MAX), file, dir }
    }

    fn turn(&mut self) {
        let flow = self.agent.once(&mut self.events, Some(Duration::from_millis(20)));
        assert!(flow.is_continue(), "nobody told it to leave");
    }

    fn until<T>(&mut self, what: &str, mut look: impl FnMut(&mut Agent) -> Option<T>) -> T {
        let began = Instant::now();
        loop {
            if let Some(found) = look(&mut self.agent) {
                return found;
            }
            assert!(began.elapsed() < PATIENCE, "waited too long for {what}");
            self.turn();
        }
    }

    fn reload(&mut self, watches: &str) {
        write(&self.file, watches);
        self.agent.reload(sys::now());
    }

    fn page(&mut self) -> String {
        let mut page = FixedBuf::new(1 << 20);
        self.agent
            .http_view(|_, view| assert_eq!(view.page("/metrics", &mut page).map(|it| it.0), Some(200)));
        let page = String::from_utf8(page.to_vec()).expect("text");
        is_well_formed(&page);
        page
    }

    fn status(&self, name: &str) -> Option<TracerStatus> {
        self.agent.status(sys::now()).tracers.into_iter().find(|tracer| tracer.name == name)
    }

    fn until_events(&mut self, name: &str, count: u64) {
        self.until("an event", |agent| {
            let tracers = agent.status(sys::now()).tracers;
            tracers.iter().any(|tracer| tracer.name == name && tracer.events == count).then_some(())
        });
    }

    /// Asks a tracer for a capture, which is open until the next turn.
    fn ask(&mut self, name: &str) {
        let place = self.agent.slots.place_of(name).expect("it is there");
        let asked = Input::Asked(None, Duration::from_millis(10));
        let effects = self.agent.feed(place, sys::now(), None, &asked).expect("a tracer");
        assert_eq!(effects.asked, 1);
    }

    /// All documents of a tracer, the oldest first.
    fn documents(&self, name: &str) -> Vec<Value> {
        let mut reader = log::Reader::open(&self.dir).expect("a log");
        let mut found = Vec::new();
        while let Some(entry) = reader.next().expect("whole") {
            let document: Value = serde_json::from_slice(entry.bytes).expect("JSON");
            found.extend((document["tracer_name"] == name).then_some(document));
        }
        found
    }
}

fn write(file: &Path, watches: &str) {
    let folder = file.parent().expect("it is in one").display();
    let off = |name: &str| format!("[tracer.{name}]\nenabled = false\n");
    let off: String = TRACERS.iter().map(|spec| off(spec.name)).collect();
    let text = format!(
        "socket = \"{folder}/socket\"\n[log]\ndir = \"{folder}/log\"\n[http]\nlisten = \"127.0.0.1:0\"\n\
         [capture]\nbudget_percent = 100\n{off}{watches}"
    );
    std::fs::write(file, text).expect("a file");
}

/// Each family is declared once, all its samples follow it, and no sample is there twice.
fn is_well_formed(page: &str) {
    let (mut families, mut samples, mut family) = (BTreeSet::new(), BTreeSet::new(), "");
    for line in page.lines() {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            family = declared.split(' ').next().expect("a name");
            assert!(families.insert(family), "{family} is declared twice");
        } else if !line.starts_with('#') {
            let (sample, _) = line.rsplit_once(' ').expect("a value");
            assert!(sample.starts_with(family), "{sample} is not of {family}");
            assert!(samples.insert(sample), "{sample} is there twice");
        }
    }
}

/// Whether a page shows anything of a tracer.
fn shows(page: &str, name: &str) -> bool {
    page.contains(&format!("\"{name}\"")) || page.contains(&format!("onset_watch_{name}"))
}

fn has_line(page: &str, begin: &str) -> bool {
    page.lines().any(|line| line.starts_with(begin))
}

#[test]
fn tracers_that_a_reload_makes_measure_and_tell_until_another_reload_takes_them_away() {
    alone("tracers_that_a_reload_makes_measure_and_tell_until_another_reload_takes_them_away", |folder| {
        let mut tested = Tested::start(folder);
        assert!(!tested.page().contains("onset_watch_"));
        tested.reload(&format!("{LOAD}{FULL}"));
        tested.until_events("full", 1);
        let page = tested.page();
        assert!(has_line(&page, "onset_watch_load ") && has_line(&page, "onset_watch_full "), "{page}");
        assert!(has_line(&page, "onset_tracer_state{tracer=\"full\",state=\"active\"} 1"), "{page}");
        assert_eq!(tested.documents("load"), [] as [Value; 0]);
        let [event] = tested.documents("full").try_into().expect("one: then it is quiet");
        let data = &event["tracer_data"];
        assert_eq!((&event["tracer_type"], &data["trigger"]), (&"autotracing".into(), &"sustained".into()));
        assert!(data["value"].as_f64().is_some_and(|percent| (0.0..=100.0).contains(&percent)), "{event}");
        let status = tested.status("full").expect("it is there");
        let last = status.last_event.expect("an event");
        assert_eq!(
            (last.id.as_str(), last.trigger.as_deref()),
            (event["tracer_id"].as_str().expect("an id"), Some("sustained"))
        );
        let [capture] = last.captures.try_into().expect("made of one");
        assert_eq!((&*capture.kind, &*capture.scope, &*capture.outcome), ("tasks", "host", "done"));
        assert!(capture.began.is_some_and(|began| began >= last.time) && capture.lasted_ms.is_some());
        tested.reload(LOAD);
        tested.turn();
        let page = tested.page();
        assert!(has_line(&page, "onset_watch_load ") && !shows(&page, "full"), "{page}");
        assert_eq!((tested.status("full"), tested.agent.slots.place_of("full")), (None, None));
        tested.reload(FULL);
        tested.until_events("full", 1);
        assert_eq!(tested.documents("full").len(), 2, "one that is new remembers no cooldown");
        assert!(!tested.page().contains("onset_watch_load"));
    });
}

#[test]
fn a_capture_of_a_tracer_that_is_taken_away_ends_in_its_event_and_then_its_place_is_free() {
    alone(
        "a_capture_of_a_tracer_that_is_taken_away_ends_in_its_event_and_then_its_place_is_free",
        |folder| {
            let mut tested = Tested::start(folder);
            tested.reload(&format!("{LOAD}{FULL}"));
            tested.until_events("full", 1);
            let place = tested.agent.slots.place_of("full").expect("it is there");
            tested.ask("full");
            let [open] = tested.agent.status(sys::now()).open_captures.try_into().expect("one is open");
            assert_eq!(
                (&*open.kind, &*open.tracer, open.trigger.as_deref()),
                ("tasks", "full", Some("manual"))
            );
            assert_eq!((&*open.scope, open.container_id), ("host", None));
            tested.reload(LOAD);
            assert!(
                !shows(&tested.page(), "full") && tested.agent.slots.get(place).is_some(),
                "it is not over"
            );
            tested.until("its last event", |agent| agent.slots.get(place).is_none().then_some(()));
            let documents = tested.documents("full");
            assert_eq!(documents.len(), 2);
            assert_eq!(documents[1]["tracer_data"]["trigger"], "manual");
            tested.reload(&format!("{LOAD}{}", FULL.replace("full", "third")));
            assert_eq!(tested.agent.slots.place_of("third"), Some(place));
            tested.until_events("third", 1);
        },
    );
}

#[test]
fn a_tracer_that_comes_back_before_its_last_capture_is_over_remembers_its_cooldown() {
    alone("a_tracer_that_comes_back_before_its_last_capture_is_over_remembers_its_cooldown", |folder| {
        let mut tested = Tested::start(folder);
        tested.reload(FULL);
        tested.until_events("full", 1);
        tested.ask("full");
        tested.reload("");
        tested.reload(&FULL.replace("evidence = \"tasks\"", "evidence = \"memory\""));
        tested.until_events("full", 2);
        tested.ask("full");
        tested.until_events("full", 3);
        for _ in 0..20 {
            tested.turn();
        }
        let triggers: Vec<_> = tested.documents("full");
        let triggers: Vec<_> = triggers.iter().map(|it| &it["tracer_data"]["trigger"]).collect();
        assert_eq!(triggers, ["sustained", "manual", "manual"], "it was quiet meanwhile");
        let last = tested.status("full").and_then(|status| status.last_event).expect("an event");
        assert_eq!(last.captures[0].kind, "memory", "it captures what it is configured to now");
    });
}

#[test]
fn a_storm_of_reloads_that_make_tracers_and_take_them_away_leaves_nothing_behind() {
    alone("a_storm_of_reloads_that_make_tracers_and_take_them_away_leaves_nothing_behind", |folder| {
        // Files of containers come and go with these.
        let is_timer = |link: &PathBuf| link.as_os_str() == "anon_inode:[timerfd]";
        let timers = || {
            let files = std::fs::read_dir("/proc/self/fd").expect("procfs").flatten();
            files.filter_map(|file| std::fs::read_link(file.path()).ok()).filter(is_timer).count()
        };
        let mut tested = Tested::start(folder);
        tested.reload(&format!("{LOAD}{FULL}"));
        tested.until_events("full", 1);
        let (places, open) = (tested.agent.slots.places(), timers());
        assert_eq!(open, TRACERS.len() + 2);
        for round in 0..300 {
            tested.until("room", |agent| (agent.shared.ledger.open().len() < 16).then_some(()));
            tested.ask("full");
            tested.reload(["", LOAD, FULL][round % 3]);
            if round % 2 == 0 {
                tested.turn();
            }
            tested.reload(&format!("{LOAD}{FULL}"));
        }
        tested.until("the last capture", |agent| agent.shared.ledger.open().is_empty().then_some(()));
        assert_eq!((tested.agent.slots.places(), timers()), (places, open));
        assert_eq!(tested.agent.faults.reloads, 0);
        let asked =
            tested.documents("full").iter().filter(|it| it["tracer_data"]["trigger"] == "manual").count();
        assert_eq!(asked, 300, "no event is lost over a reload");
    });
}

#[test]
fn the_loop_takes_nothing_from_the_heap_for_tracers_that_its_config_made() {
    alone("the_loop_takes_nothing_from_the_heap_for_tracers_that_its_config_made", |folder| {
        let mut tested = Tested::start(folder);
        tested.reload(&format!("{LOAD}{}", FULL.replace("sustained", "cooldown = \"0s\"\nsustained")));
        tested.until_events("full", 1);
        let mut page = FixedBuf::new(1 << 20);
        let place = tested.agent.slots.place_of("full").expect("it is there");
        let before = TAKEN.get();
        for _ in 0..500 {
            tested.turn();
            page.clear();
            tested.agent.http_view(|_, view| view.scrape(&mut page));
        }
        let taken = TAKEN.get() - before;
        let counts = &tested.agent.slots.get(place).expect("it is there").counts;
        assert!(counts.events > 3 && counts.samples > 10, "{counts:?}");
        assert_eq!(taken, 0, "in {} samples and {} events", counts.samples, counts.events);
    });
}

#[test]
fn no_metric_of_the_agent_s_own_can_be_made_by_a_config() {
    for template in REGISTRY.templates.iter().chain(TEMPLATES) {
        let prefix = format!("onset_{}_", template.section);
        let own = metrics::OWN.iter().chain(&outputs::METRICS);
        assert_eq!(own.filter(|metric| metric.name.starts_with(&prefix)).count(), 0, "{prefix}");
    }
}

//! Documents: they fit, they are whole, and they say what was left out.

use super::*;
use crate::capture_data::Ticket;
use crate::clock::{Now, Wall};
use crate::host::containers::claim::Maker;
use crate::host::{Container, Containers, Identity, Role, Text};
use crate::tracer::{About, Data, Shrink, Tickets, document};

struct List(Vec<u32>);

impl Data for List {
    fn write(&self, shrink: Shrink, to: &mut dyn std::io::Write) -> serde_json::Result<()> {
        let kept = &self.0[..shrink.keep(self.0.len())];
        serde_json::to_writer(
            to,
            &serde_json::json!({ "list": kept, "truncated": self.0.len() - kept.len() }),
        )
    }
}

fn written(
    container: Option<Container<'_>>,
    trigger: Trigger,
    event: bool,
    list: usize,
    to: &mut [u8],
) -> Option<usize> {
    let about = About { subject: None, trigger, time: Wall(1_000), captures: Tickets::default() };
    let envelope = document::Envelope {
        hostname: "h\"\u{1f}",
        region: "",
        container,
        tracer_name: "t",
        tracer_id: &format_args!("{}-{}", 1, 2),
        about: &about,
        now: Now { mono: TEN, wall: Wall(11_000) },
        event,
    };
    document::write(&envelope, &List(vec![u32::MAX; list]), to).ok()
}

fn read(container: Option<Container<'_>>, trigger: Trigger, event: bool) -> serde_json::Value {
    let mut page = [0; 4096];
    let len = written(container, trigger, event, 2, &mut page).expect("room");
    serde_json::from_slice(&page[..len]).expect("JSON")
}

#[test]
fn the_envelope_says_what_is_known_and_leaves_out_what_is_not() {
    let want = serde_json::json!({
        "@timestamp": "1970-01-01T00:00:01.000Z", "hostname": "h\"\u{1f}", "region": "",
        "time": "1970-01-01T00:00:11.000Z", "tracer_name": "t", "tracer_id": "1-2",
        "tracer_time": "1970-01-01T00:00:01.000Z", "tracer_type": "autotracing",
        "onset_version": env!("CARGO_PKG_VERSION"),
        "tracer_data": { "list": [u32::MAX, u32::MAX], "truncated": 0 },
    });
    assert_eq!(read(None, Trigger::Surge, false), want);
    let containers = Containers::fixture(&[("abc", "/kubepods/x")]);
    let found = read(containers.get(Play::key(0)), Trigger::Sustained, false);
    assert_eq!((&found["container_id"], &found["cgroup_path"]), (&"abc".into(), &"/kubepods/x".into()));
    assert_eq!(found.as_object().map(serde_json::Map::len), Some(12), "and no more of a nameless container");
}

#[test]
fn a_container_is_told_by_all_its_names_also_when_it_is_gone() {
    let mut containers = Containers::with_capacity(4);
    let path = format!("/kubepods/burstable/pod12ab-34/{}", "7".repeat(64));
    let found = crate::host::containers::path::recognise(&path).expect("a container's path");
    let key = containers.appear(path.as_bytes(), &found, 5, Maker::Host).expect("room");
    let told = Identity {
        name: Text::cut("web"),
        pod: Text::cut("web-0"),
        namespace: Text::cut("shop"),
        hostname: Text::cut("web-0.local"),
        role: Some(Role::Sidecar),
        ..Identity::UNKNOWN
    };
    containers.describe(key, &told);
    containers.vanish(key);
    let found = read(containers.get(key), Trigger::Surge, false);
    for (field, value) in [
        ("container_name", "web"),
        ("container_hostname", "web-0.local"),
        ("container_host_namespace", "shop"),
        ("container_type", "sidecar"),
        ("container_qos", "burstable"),
        ("pod", "web-0"),
        ("pod_uid", "12ab-34"),
    ] {
        assert_eq!(found[field], value, "{field}");
    }
}

#[test]
fn its_type_says_who_made_it() {
    for (trigger, event, want) in [
        (Trigger::Surge, false, "autotracing"),
        (Trigger::Surge, true, "event"),
        (Trigger::Manual, false, "manual"),
        (Trigger::Manual, true, "manual"),
    ] {
        assert_eq!(read(None, trigger, event)["tracer_type"], want);
    }
}

#[test]
fn it_fits_into_any_size_that_has_room_for_the_envelope_and_fills_it() {
    let mut page = vec![0; 8192];
    let least = written(None, Trigger::Surge, false, 0, &mut page).expect("room");
    assert_eq!(written(None, Trigger::Surge, false, 0, &mut page[..least]), Some(least), "to the last byte");
    assert_eq!(written(None, Trigger::Surge, false, 0, &mut page[..least - 1]), None);
    for size in (0..least + 10).chain((least + 10..page.len()).step_by(997)) {
        let guard = page[size];
        let len = written(None, Trigger::Surge, false, 5000, &mut page[..size]);
        assert_eq!(page[size], guard, "not a byte more");
        let Some(len) = len else {
            assert!(size < least + 6, "{size} bytes are enough for {least}");
            continue;
        };
        assert!(size >= least && len <= size);
        let document: serde_json::Value = serde_json::from_slice(&page[..len]).expect("JSON");
        let list = document["tracer_data"]["list"].as_array().expect("a list").len();
        assert_eq!(document["tracer_data"]["truncated"], 5000 - list, "{size}");
        assert!(size < 1000 || len > size / 8 * 7 - 11, "{len} of {size}");
    }
}

/// A profile of `frames` frames, with names of about `name` bytes; each frame has one sample more than the frame
/// before it.
fn profiled(document: usize, frames: u64, name: usize) -> (serde_json::Value, usize) {
    let mut play = Play::new("cpusys", "", document);
    let ticket = play.ask(None).expect("a capture");
    let all = frames * frames;
    let mut flame = vec![FlameNode { level: 0, value: all, own: 0, label: "all" }];
    let name = |value: u64| "f".repeat(name / 2 + usize::try_from(value).expect("few") % name.max(1));
    let node = |value: u64| FlameNode { level: 1, value, own: value, label: name(value).leak() };
    flame.extend((1..frames).map(node));
    let profile = Profile { hz: 99, samples: 1, flame: rows(flame), top: Rows::default() };
    let capture = Capture { data: CaptureData::Stacks(profile), ..capture(CaptureKind::Stacks, Scope::Host) };
    assert_eq!(play.answer(ticket, Ok(&capture)), Some(Trigger::Manual));
    let (_, document) = play.seen.events.remove(0);
    let len = document.to_string().len();
    (document, len)
}

#[test]
fn a_document_that_fits_is_whole_and_one_that_does_not_uses_the_room_there_is() {
    // 9,000 frames are 450 KiB.
    let (document, len) = profiled(1 << 20, 9000, 12);
    assert!((300 << 10..1 << 20).contains(&len), "{len}");
    let data = &document["tracer_data"];
    assert_eq!((&data["truncated"], data.get("truncated_lists")), (&0.into(), None));
    for (room, frames, name) in
        [(1 << 20, 30_000, 40), (1 << 20, 200_000, 3), (64 << 10, 2000, 30), (64 << 10, 60_000, 100)]
    {
        let (document, len) = profiled(room, frames, name);
        assert!(len > room / 8 * 7 && len <= room, "{len} of {room}: {frames} frames");
        let data = &document["tracer_data"];
        let left_out = frames - data["flamedata"].as_array().expect("a list").len() as u64;
        assert_eq!(data["truncated"], left_out);
        let why = serde_json::json!([
            { "list": "flamedata", "left_out": left_out, "limited_by": "log.document", "limit": room },
        ]);
        assert_eq!(data["truncated_lists"], why);
    }
}

#[test]
fn what_a_list_is_limited_by_is_told_where_the_document_has_room() {
    let (document, len) = profiled(16 << 20, 100_000, 8);
    assert!(len < 8 << 20, "{len}");
    let why = serde_json::json!([
        { "list": "flamedata", "left_out": 100_000 - (1 << 15), "limited_by": "frames", "limit": 1 << 15 },
    ]);
    assert_eq!(document["tracer_data"]["truncated_lists"], why);
    let mut play = Play::new("dload", "", SIZE);
    let ticket = play.ask(None).expect("a capture");
    let tasks = rows((0..3000).map(|tid| task(tid, &["io_schedule"])));
    let capture = Capture { data: CaptureData::Tasks(tasks), ..capture(CaptureKind::Tasks, Scope::Host) };
    assert_eq!(play.answer(ticket, Ok(&capture)), Some(Trigger::Manual));
    let why = serde_json::json!([
        { "list": "tasks", "left_out": 3000 - 1024, "limited_by": "rows", "limit": 1024 },
    ]);
    assert_eq!(play.seen.events[0].1["tracer_data"]["truncated_lists"], why);
}

#[test]
fn a_document_is_written_a_few_times_at_most() {
    struct Counted(List, std::cell::Cell<u32>);
    impl Data for Counted {
        fn write(&self, shrink: Shrink, to: &mut dyn std::io::Write) -> serde_json::Result<()> {
            self.1.set(self.1.get() + 1);
            self.0.write(shrink, to)
        }
    }
    let mut page = vec![0; 64 << 10];
    for list in [0, 1, 100, 5_000, 7_000, 100_000, 1 << 20] {
        let about =
            About { subject: None, trigger: Trigger::Surge, time: Wall(1_000), captures: Tickets::default() };
        let envelope = document::Envelope {
            hostname: "h",
            region: "",
            container: None,
            tracer_name: "t",
            tracer_id: &1,
            about: &about,
            now: Now { mono: TEN, wall: Wall(11_000) },
            event: false,
        };
        let data = Counted(List(vec![u32::MAX; list]), std::cell::Cell::new(0));
        document::write(&envelope, &data, &mut page).expect("room");
        let times = data.1.get();
        assert!(times <= if list <= 5_000 { 1 } else { 3 }, "{list}: written {times} times");
    }
}

#[test]
fn a_large_profile_loses_its_least_frames_and_counts_them() {
    let mut play = Play::new("cpusys", "", 16 << 10);
    let ticket = play.ask(None).expect("a capture");
    let mut flame = vec![FlameNode { level: 0, value: 40_000, own: 0, label: "all" }];
    let node = |value: u64| FlameNode { level: 1, value, own: value, label: "function" };
    flame.extend((1..20_000).map(node));
    let profile = Profile { hz: 99, samples: 1, flame: rows(flame), top: Rows::default() };
    let capture = Capture { data: CaptureData::Stacks(profile), ..capture(CaptureKind::Stacks, Scope::Host) };
    assert_eq!(play.answer(ticket, Ok(&capture)), Some(Trigger::Manual));
    let data = &play.seen.events[0].1["tracer_data"];
    let kept = data["flamedata"].as_array().expect("a list");
    assert_eq!(data["truncated"], 20_000 - kept.len());
    assert!(kept.len() > 100, "{}", kept.len());
    assert_eq!(kept[0]["label"], "all");
    let least = 20_000 - (kept.len() - 1);
    assert!(kept[1..].iter().all(|node| node["value"].as_u64().is_some_and(|value| value >= least as u64)));
}

#[test]
fn a_storm_of_blocked_tasks_fits_too() {
    let mut play = Play::new("dload", "", 16 << 10);
    let ticket = play.ask(None).expect("a capture");
    let tasks = rows((0..3000).map(|tid| task(tid, &["io_schedule", ["a", "b", "c"][tid as usize % 3]])));
    let capture = Capture { data: CaptureData::Tasks(tasks), ..capture(CaptureKind::Tasks, Scope::Host) };
    assert_eq!(play.answer(ticket, Ok(&capture)), Some(Trigger::Manual));
    let data = &play.seen.events[0].1["tracer_data"];
    let kept = data["tasks"].as_array().expect("a list");
    assert_eq!(data["truncated"], 3000 - kept.len());
    assert!(kept.len() > 20 && kept[0]["tid"] == 0, "the first ones stay");
    assert_eq!(data["stack"].as_str().map(|text| text.matches("io_schedule").count()), Some(3));
}

#[test]
fn answers_of_strangers_are_counted() {
    let mut play = Play::new("dload", "", SIZE);
    play.event(crate::tracer::Event::Refused(Ticket(999), crate::capture_data::Refusal::Gone));
    play.event(crate::tracer::Event::Record(b"x"));
    assert_eq!(play.seen.faults, ["unknown_ticket", "foreign_record"]);
}

#[test]
fn what_the_arena_of_a_capture_had_no_room_for_is_told_with_its_size() {
    let list = |list: &str, left_out: usize, kind: CaptureKind| {
        let limit = kind.arena_bytes();
        serde_json::json!({ "list": list, "left_out": left_out, "limited_by": "arena", "limit": limit })
    };
    let told = |tracer, kind, cut: &dyn Fn(&mut CaptureData<'static>)| {
        let mut play = Play::new(tracer, "", 1 << 20);
        let ticket = play.ask(None).expect("a capture");
        let mut capture = capture(kind, Scope::Host);
        cut(&mut capture.data);
        assert_eq!(play.answer(ticket, Ok(&capture)), Some(Trigger::Manual));
        let data = play.seen.events.remove(0).1["tracer_data"].take();
        (data["truncated"].clone(), data["truncated_lists"].clone())
    };
    let (truncated, lists) = told("cpusys", CaptureKind::Stacks, &|data| {
        let CaptureData::Stacks(profile) = data else { panic!("{data:?}") };
        profile.flame = profile.flame.with_left_out(70);
        profile.top = profile.top.with_left_out(5);
    });
    let want = [list("flamedata", 70, CaptureKind::Stacks), list("top_processes", 5, CaptureKind::Stacks)];
    assert_eq!((truncated, lists), (75.into(), want.as_slice().into()));
    let (truncated, lists) = told("dload", CaptureKind::Tasks, &|data| {
        let CaptureData::Tasks(tasks) = data else { panic!("{data:?}") };
        *tasks = tasks.with_left_out(9);
    });
    assert_eq!((truncated, lists), (9.into(), [list("tasks", 9, CaptureKind::Tasks)].as_slice().into()));
    let (truncated, lists) = told("waitrate", CaptureKind::Waits, &|data| {
        let CaptureData::Waits(waits) = data else { panic!("{data:?}") };
        waits.interferers = waits.interferers.with_left_out(3);
    });
    let want = [list("interferer_list", 3, CaptureKind::Waits)];
    assert_eq!((truncated, lists), (3.into(), want.as_slice().into()));
}

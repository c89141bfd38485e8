#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use std::collections::BTreeMap;

use super::*;
use crate::capture_data::{Arena, CaptureKind, FlameNode, NO_ROOM, Profile};

/// Small, seeded, and good enough to make cases with (xorshift64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// Folds in an arena of its own, of the size that captures have.
fn folded(hz: u32, rows: impl IntoIterator<Item = Row<'static>>) -> Profile<'static> {
    let arena: &Arena = Box::leak(Box::new(Arena::new(CaptureKind::Stacks.arena_bytes())));
    fold(arena, hz, rows)
}

const NAMES: [&str; 6] = ["main", "spin<3>", "std::vec", "libc.so.6+0x10", "a b", "x"];

fn rows(dice: &mut Dice) -> Vec<Row<'static>> {
    let count = 1 + dice.roll(40);
    let stack = |dice: &mut Dice| {
        let depth = dice.roll(6);
        (0..depth).map(|_| NAMES[dice.roll(NAMES.len() as u64) as usize]).collect::<Vec<_>>()
    };
    (0..count)
        .map(|_| Row {
            pid: 1 + dice.roll(5) as u32,
            comm: ["java", "nginx", "kworker/0:1"][dice.roll(3) as usize],
            weight: 1 + dice.roll(9),
            user: stack(dice),
            kernel: stack(dice),
        })
        .collect()
}

/// What folding has to come to, by the shortest way.
fn aggregated(rows: &[Row<'_>]) -> BTreeMap<String, u64> {
    let mut lines = BTreeMap::new();
    for row in rows {
        let mut frames = vec![row.comm.to_string()];
        frames.extend(row.user.iter().rev().map(ToString::to_string));
        frames.extend(row.kernel.iter().rev().map(|name| format!("{name}_[k]")));
        *lines.entry(frames.join(";")).or_default() += row.weight;
    }
    lines
}

fn folded_lines(nodes: &[FlameNode<'_>]) -> BTreeMap<String, u64> {
    let mut text = Vec::new();
    formats::folded(&Tree::check(nodes).unwrap(), &mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    let mut lines = BTreeMap::new();
    for line in text.lines() {
        let (stack, count) = line.rsplit_once(' ').unwrap();
        assert!(lines.insert(stack.to_string(), count.parse().unwrap()).is_none(), "{stack} comes twice");
    }
    lines
}

fn svg(nodes: &[FlameNode<'_>], title: &str) -> String {
    let mut text = Vec::new();
    formats::svg(&Tree::check(nodes).unwrap(), title, &mut text).unwrap();
    String::from_utf8(text).unwrap()
}

fn node(level: u32, value: u64, own: u64, label: &str) -> FlameNode<'_> {
    FlameNode { level, value, own, label }
}

#[test]
fn folded_lines_of_the_tree_are_the_stacks_that_went_in() {
    let mut dice = Dice(0x0123_4567_89ab_cdef);
    for _ in 0..500 {
        let rows = rows(&mut dice);
        let profile = folded(99, rows.clone());
        assert_eq!(folded_lines(&profile.flame), aggregated(&rows));
        assert_eq!(profile.samples, rows.iter().map(|row| row.weight).sum::<u64>());
        assert_eq!(profile.flame[0].value, profile.samples);
        assert_eq!(profile.top.iter().map(|process| process.samples).sum::<u64>(), profile.samples);
    }
}

#[test]
fn siblings_have_distinct_labels_and_stand_by_samples_then_by_label() {
    let mut dice = Dice(42);
    for _ in 0..200 {
        let flame = folded(99, rows(&mut dice)).flame;
        for (index, parent) in flame.iter().enumerate() {
            let below = flame[index + 1..].iter().take_while(|node| node.level > parent.level);
            let children: Vec<_> = below.filter(|node| node.level == parent.level + 1).collect();
            assert_eq!(parent.value, parent.own + children.iter().map(|child| child.value).sum::<u64>());
            for pair in children.windows(2) {
                let order = (pair[1].value, pair[0].label).cmp(&(pair[0].value, pair[1].label));
                assert!(order.is_lt(), "{pair:?}");
            }
        }
    }
}

#[test]
fn the_order_of_the_samples_does_not_matter() {
    let mut rows = rows(&mut Dice(7));
    rows.sort_by_key(|row| row.pid);
    for row in &mut rows {
        row.comm = "same";
    }
    let forward = folded(99, rows.clone());
    rows.reverse();
    assert_eq!(folded(99, rows), forward);
}

#[test]
fn a_process_goes_down_from_its_name_through_its_functions_into_the_kernel() {
    let row = Row {
        pid: 7,
        comm: "nginx",
        weight: 3,
        user: vec!["write", "main"],
        kernel: vec!["vfs_write", "entry"],
    };
    let idle = Row { pid: 8, comm: "nginx", weight: 1, user: vec![], kernel: vec![] };
    let profile = folded(49, [row, idle]);
    let want = [
        node(0, 4, 0, "all"),
        node(1, 4, 1, "nginx"),
        node(2, 3, 0, "main"),
        node(3, 3, 0, "write"),
        node(4, 3, 0, "entry_[k]"),
        node(5, 3, 3, "vfs_write_[k]"),
    ];
    assert_eq!(profile.flame.list(), want);
    assert_eq!((profile.hz, profile.samples), (49, 4));
    assert_eq!(profile.top.iter().map(|p| (p.pid, p.samples)).collect::<Vec<_>>(), [(7, 3), (8, 1)]);
}

#[test]
fn a_process_that_executed_another_program_is_there_under_both_names() {
    let row = |comm, weight, name| Row { pid: 7, comm, weight, user: vec![name], kernel: vec![] };
    let profile = folded(49, [row("sh", 1, "main"), row("nginx", 3, "serve"), row("sh", 1, "wait")]);
    let top: Vec<_> = profile.top.iter().map(|row| (row.pid, row.comm, row.samples)).collect();
    assert_eq!(top, [(7, "nginx", 3), (7, "sh", 2)]);
}

#[test]
fn no_samples_are_a_root_alone_and_counts_do_not_wrap() {
    let none = folded(99, []);
    assert_eq!(none.flame.list(), [node(0, 0, 0, "all")]);
    assert_eq!(Tree::check(&none.flame).unwrap_err(), TreeError::Empty);
    let row = Row { pid: 1, comm: "a", weight: u64::MAX, user: vec!["f"], kernel: vec![] };
    assert_eq!(folded(99, [row.clone(), row]).samples, u64::MAX);
}

#[test]
fn nodes_that_are_no_flame_graph_are_refused_and_the_node_is_named() {
    let root = || node(0, 10, 0, "all");
    for (nodes, error) in [
        (vec![], TreeError::Empty),
        (vec![root()], TreeError::Empty),
        (vec![node(1, 10, 10, "a")], TreeError::Orphan(0)),
        (vec![root(), root()], TreeError::Orphan(1)),
        (vec![root(), node(1, 5, 5, "a"), node(3, 1, 1, "b")], TreeError::Orphan(2)),
        (vec![root(), node(u32::MAX, 1, 1, "a")], TreeError::TooDeep(1)),
        (vec![root(), node(1, 5, 6, "a")], TreeError::Overfull(1)),
        (vec![root(), node(1, 6, 6, "a"), node(1, 5, 5, "b")], TreeError::Overfull(0)),
        (vec![root(), node(1, 6, 2, "a"), node(2, 5, 5, "b")], TreeError::Overfull(1)),
        (vec![root(), node(1, u64::MAX, 1, "a"), node(1, u64::MAX, 1, "b")], TreeError::Overfull(0)),
    ] {
        assert_eq!(Tree::check(&nodes).unwrap_err(), error, "{nodes:?}");
    }
    let deep: Vec<_> = (0..2000).map(|level| node(level, 1, u64::from(level == 1999), "f")).collect();
    assert_eq!(Tree::check(&deep).unwrap_err(), TreeError::TooDeep(1025));
    // A document whose least frames were cut away has less below than above.
    let cut = [root(), node(1, 9, 2, "a"), node(2, 1, 1, "b")];
    assert_eq!(folded_lines(&cut), BTreeMap::from([("a".into(), 2), ("a;b".into(), 1)]));
}

#[test]
fn a_tree_survives_its_document() {
    let flame = folded(99, rows(&mut Dice(3))).flame;
    let json = serde_json::to_string(flame.list()).unwrap();
    assert!(json.starts_with(r#"[{"level":0,"value":"#) && json.contains(r#""self":"#), "{json}");
    assert_eq!(serde_json::from_str::<Vec<FlameNode<'_>>>(&json).unwrap(), flame.list());
}

#[test]
fn labels_that_folded_lines_cannot_hold_are_changed_not_torn() {
    let hostile =
        ["[u8; 8]", "two\nlines", "", "  ", "# comment", "kworker 7", "a 1 2.5", "\u{7}\u{ffff}", "new 3 "];
    let mut nodes = vec![node(0, 9, 0, "all")];
    nodes.extend(hostile.into_iter().map(|label| node(1, 1, 1, label)));
    let mut text = Vec::new();
    formats::folded(&Tree::check(&nodes).unwrap(), &mut text).unwrap();
    let want = "[u8: 8] 1\ntwo?lines 1\n? 1\n? 1\n?# comment 1\nkworker_7 1\na 1_2.5 1\n?? 1\nnew_3 1\n";
    assert_eq!(String::from_utf8(text).unwrap(), want);
    assert!(svg(&nodes, "hostile").contains("kworker_7"));
}

#[test]
fn speedscope_gets_every_sample_once_with_frames_that_exist() {
    let mut dice = Dice(11);
    for _ in 0..100 {
        let rows = rows(&mut dice);
        let flame = folded(99, rows.clone()).flame;
        let mut text = Vec::new();
        formats::speedscope(&Tree::check(&flame).unwrap(), "a \"title\"", &mut text).unwrap();
        let file: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(file["$schema"], "https://www.speedscope.app/file-format-schema.json");
        let profile = &file["profiles"][0];
        assert_eq!((&profile["type"], &profile["unit"]), (&"sampled".into(), &"none".into()));
        assert_eq!(profile["name"], "a \"title\"");
        let frames: Vec<_> = file["shared"]["frames"]
            .as_array()
            .unwrap()
            .iter()
            .map(|f| f["name"].as_str().unwrap())
            .collect();
        let samples = profile["samples"].as_array().unwrap();
        let weights: Vec<_> =
            profile["weights"].as_array().unwrap().iter().map(|w| w.as_u64().unwrap()).collect();
        assert_eq!(samples.len(), weights.len());
        assert_eq!(profile["endValue"].as_u64().unwrap(), weights.iter().sum::<u64>());
        let mut lines = BTreeMap::new();
        for (sample, weight) in samples.iter().zip(weights) {
            let stack: Vec<_> =
                sample.as_array().unwrap().iter().map(|i| frames[i.as_u64().unwrap() as usize]).collect();
            lines.insert(stack.join(";"), weight);
        }
        assert_eq!(lines, aggregated(&rows));
    }
}

#[test]
fn the_svg_is_well_formed_complete_and_fetches_nothing() {
    let row = |comm, kernel| Row { pid: 1, comm, weight: 5, user: vec!["spin<3>", "\"main\" & co"], kernel };
    let flame = folded(99, [row("nginx", vec![]), row("<evil>", vec!["vfs_write"])]).flame;
    let text = svg(&flame, "cpuidle </title><script>");
    well_formed(&text);
    for name in ["nginx", "&lt;evil&gt;", "spin&lt;3&gt;", "vfs_write", "&amp; co"] {
        assert!(text.contains(name), "{name}");
    }
    assert!(!text.contains("<evil>") && !text.contains("</title><script>"));
    let fetched = text
        .split("http")
        .skip(1)
        .filter(|rest| !rest.contains("://www.w3.org/") && !rest.starts_with("://www.w3.org/"));
    for rest in fetched {
        let before = &text[..text.len() - rest.len()];
        assert!(
            !before.ends_with("href=\"http") && !before.ends_with("src=\"http"),
            "{}",
            &rest[..60.min(rest.len())]
        );
    }
    assert_eq!(svg(&flame, "cpuidle </title><script>"), text, "the same tree gives the same bytes");
}

#[test]
fn kernel_frames_have_a_colour_of_their_own() {
    let fill = |label: &str| {
        let text = svg(&[node(0, 1, 0, "all"), node(1, 1, 1, label)], "t");
        // The mark has become a colour: viewers see the plain name.
        let at = text.find(&format!("<title>{}", label.trim_end_matches("_[k]"))).unwrap();
        let rgb = text[at..].split("fill=\"rgb(").nth(1).unwrap().split(')').next().unwrap();
        rgb.split(',').map(|part| part.parse::<u32>().unwrap()).collect::<Vec<_>>()
    };
    let (kernel, user) = (fill("vfs_write_[k]"), fill("write"));
    // Orange has far more green than red has.
    assert!(kernel[1] > user[1] && kernel[2] < user[2].max(60), "{kernel:?} {user:?}");
}

/// As much of XML as tells a torn file: tags nest, text and attributes hold no bare `<` or `&`.
fn well_formed(xml: &str) {
    let mut open = Vec::new();
    let mut rest = xml;
    while let Some(at) = rest.find('<') {
        for entity in rest[..at].split('&').skip(1) {
            assert!(
                entity.split_once(';').is_some_and(|(name, _)| name.len() < 8),
                "bare & before {entity:.20}"
            );
        }
        rest = &rest[at..];
        let end = match rest {
            _ if rest.starts_with("<![CDATA[") => rest.find("]]>").unwrap() + 2,
            _ if rest.starts_with("<!--") => rest.find("-->").unwrap() + 2,
            _ => rest.find('>').unwrap(),
        };
        let tag = &rest[..=end];
        assert!(!tag[1..].contains('<') || tag.starts_with("<!"), "{tag}");
        if let Some(name) = tag.strip_prefix("</") {
            assert_eq!(open.pop(), name.strip_suffix('>'), "{tag}");
        } else if !tag.starts_with("<?") && !tag.starts_with("<!") && !tag.ends_with("/>") {
            open.push(tag[1..tag.len() - 1].split_whitespace().next().unwrap());
        }
        rest = &rest[end + 1..];
    }
    assert!(open.is_empty(), "{open:?}");
}

/// The tree of this many stacks, each in a process of its own, in an arena of this size.
fn crowded(arena: &Arena, stacks: u32) -> (Profile<'_>, u64) {
    let names: Vec<String> =
        (0..stacks).map(|number| format!("a_function_of_some_length_{number}")).collect();
    let row = |number: u32| Row {
        pid: number,
        comm: "nginx",
        weight: u64::from(stacks - number),
        user: vec![&names[number as usize], "main"],
        kernel: vec![],
    };
    (fold(arena, 99, (0..stacks).map(row)), (1..=u64::from(stacks)).sum())
}

#[test]
fn stacks_that_the_arena_has_no_room_for_are_counted_in_a_node_of_their_own() {
    let arena = Arena::new(64 << 10);
    let (profile, samples) = crowded(&arena, 5000);
    Tree::check(&profile.flame).unwrap();
    let root = profile.flame[0];
    assert_eq!((profile.samples, root.value), (samples, samples), "no sample is missing");
    let own: u64 = profile.flame.iter().map(|node| node.own).sum();
    assert_eq!(own, samples);
    let beyond = profile.flame.iter().find(|node| node.label == NO_ROOM).expect("not all of them fit");
    let leaves = profile.flame.iter().filter(|node| node.level == 3).count();
    assert_eq!(leaves + profile.flame.left_out(), 5000);
    assert!(leaves > 400, "{leaves} stacks in 64 KiB");
    // Those that came first, which are the heaviest, are those that are kept.
    let kept: u64 = (0..leaves as u64).map(|number| 5000 - number).sum();
    assert_eq!((beyond.level, beyond.value), (1, samples - kept));
    assert_eq!(profile.top.len() + profile.top.left_out(), 5000);
    assert!(profile.top.len() > 200 && profile.top.left_out() > 0);
    assert!(arena.room() < 8 << 10, "{} bytes are left", arena.room());
}

#[test]
fn stacks_that_all_fit_leave_no_node_for_those_that_do_not() {
    let arena = Arena::new(CaptureKind::Stacks.arena_bytes());
    let (profile, _) = crowded(&arena, 5000);
    assert_eq!((profile.flame.left_out(), profile.top.left_out()), (0, 0));
    assert!(profile.flame.iter().all(|node| node.label != NO_ROOM));
    assert_eq!((profile.flame.len(), profile.top.len()), (5003, 5000));
}

#[test]
fn an_arena_of_any_size_gives_a_tree_that_holds_all_samples_or_no_tree() {
    for size in (0..2000).step_by(7) {
        let arena = Arena::new(size);
        let (profile, samples) = crowded(&arena, 40);
        assert_eq!(profile.samples, samples);
        match Tree::check(&profile.flame) {
            Ok(_) => assert_eq!(profile.flame[0].value, samples, "{size}"),
            Err(error) => {
                assert_eq!(error, TreeError::Empty, "{size}");
                assert!(profile.flame.len() < 2 && profile.flame.left_out() > 0);
            }
        }
    }
}

#[test]
fn a_stack_with_a_name_that_is_longer_than_the_arena_is_left_out_and_later_ones_are_not() {
    let arena = Arena::new(4096);
    let long = "x".repeat(8192);
    let row = |name, weight| Row { pid: 1, comm: "sh", weight, user: vec![name, "main"], kernel: vec![] };
    let profile = fold(&arena, 99, [row(long.as_str(), 5), row("short", 2)]);
    let nodes: Vec<_> = profile.flame.iter().map(|node| (node.level, node.value, node.label)).collect();
    assert_eq!(nodes, [(0, 7, "all"), (1, 5, NO_ROOM), (1, 2, "sh"), (2, 2, "main"), (3, 2, "short")]);
    assert_eq!(profile.flame.left_out(), 1);
}

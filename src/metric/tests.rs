#![allow(clippy::unwrap_used)]
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::family::is_plain;
use super::*;
use crate::fixed_buf::FixedBuf;

const LOAD: Metric = Metric {
    name: "onset_load",
    help: "The load.",
    kind: MetricKind::Gauge,
    labels: &["container_id", "mode"],
};
const EVENTS: Metric =
    Metric { name: "onset_events_total", help: "Events so far.", kind: MetricKind::Counter, labels: &[] };
const TURN: Metric = Metric {
    name: "onset_turn_seconds",
    help: "How long a turn took, in \"seconds\" \\ not\nmilliseconds.",
    kind: MetricKind::Histogram,
    labels: &["who"],
};
const ALL: &[Metric] = &[LOAD, EVENTS, TURN];

fn text(buf: &FixedBuf) -> &str {
    std::str::from_utf8(buf).unwrap()
}

fn scraped(write: impl FnOnce(&mut Scrape<'_>)) -> (String, Mishaps) {
    let mut buf = FixedBuf::new(4096);
    let mut scrape = Scrape::new(&mut buf, ALL);
    write(&mut scrape);
    let mishaps = scrape.mishaps();
    (text(&buf).to_owned(), mishaps)
}

fn all_kinds(scrape: &mut Scrape<'_>) {
    let mut turn =
        Histogram::new([Duration::from_micros(100), Duration::from_millis(1), Duration::from_millis(10)]);
    for us in [50, 100, 101, 20_000] {
        turn.observe(Duration::from_micros(us));
    }
    scrape.family(&LOAD, |f| {
        f.sample(&["a", "user"], 0.5);
        f.sample(&[&b"b\xff\0\"\\\n"[..], b"user"], f64::NAN);
        f.sample(&["c", "user"], f64::INFINITY);
        f.sample(&["c", "\u{e9}"], -1e300);
    });
    scrape.family(&EVENTS, |f| f.value(u64::MAX));
    scrape.family(&TURN, |f| f.histogram(&["loop"], &turn));
}

#[test]
fn a_page_of_all_kinds_is_what_the_format_says() {
    let (page, mishaps) = scraped(all_kinds);
    let want = "\
# HELP onset_load The load.
# TYPE onset_load gauge
onset_load{container_id=\"a\",mode=\"user\"} 0.5
onset_load{container_id=\"b\u{fffd}\u{fffd}\\\"\\\\\\n\",mode=\"user\"} NaN
onset_load{container_id=\"c\",mode=\"user\"} +Inf
onset_load{container_id=\"c\",mode=\"\u{e9}\"} -1e300
# HELP onset_events_total Events so far.
# TYPE onset_events_total counter
onset_events_total 18446744073709551615
# HELP onset_turn_seconds How long a turn took, in \"seconds\" \\\\ not\\nmilliseconds.
# TYPE onset_turn_seconds histogram
onset_turn_seconds_bucket{who=\"loop\",le=\"0.0001\"} 2
onset_turn_seconds_bucket{who=\"loop\",le=\"0.001\"} 3
onset_turn_seconds_bucket{who=\"loop\",le=\"0.01\"} 3
onset_turn_seconds_bucket{who=\"loop\",le=\"+Inf\"} 4
onset_turn_seconds_sum{who=\"loop\"} 0.020251
onset_turn_seconds_count{who=\"loop\"} 4
";
    assert_eq!(page, want);
    assert_eq!(mishaps, Mishaps::default());
}

#[test]
fn promtool_has_nothing_to_say_about_a_page_of_all_kinds() {
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = promtool else {
        eprintln!("SKIPPED: no promtool here (the package `prometheus` has it)");
        return;
    };
    promtool.stdin.take().unwrap().write_all(scraped(all_kinds).0.as_bytes()).unwrap();
    let said = promtool.wait_with_output().unwrap();
    let words = [said.stdout, said.stderr].concat();
    assert!(said.status.success() && words.is_empty(), "{}", String::from_utf8_lossy(&words));
}

#[test]
fn every_value_reads_back_as_itself() {
    let mut values = vec![
        0.0,
        -0.0,
        1.0,
        0.1,
        1e-7,
        1e-6,
        123_456_789.123,
        1e15,
        1e16,
        f64::MAX,
        f64::MIN_POSITIVE,
        5e-324,
    ];
    values.extend(values.clone().iter().map(|value| -value));
    for value in values {
        let shown = Value::from(value).to_string();
        assert_eq!(shown.parse::<f64>().unwrap().to_bits(), value.to_bits(), "{shown}");
        assert!(shown.len() < 26, "{shown}");
    }
    assert_eq!(Value::from(Duration::from_millis(1500)).to_string(), "1.5");
    assert_eq!(Value::from(f64::NEG_INFINITY).to_string(), "-Inf");
}

#[test]
fn what_is_written_fast_is_what_is_written_slowly() {
    let metric = Metric { name: "m", help: "A family.", kind: MetricKind::Gauge, labels: &["id", "mode"] };
    let values: Vec<Value> = [0, 1, 9, 10, 12_345, u64::MAX]
        .map(Value::Whole)
        .into_iter()
        .chain([0.0, 1.0, 0.25, 1e-9, -7.5, f64::MAX, f64::INFINITY, f64::NAN].map(Value::Real))
        .collect();
    // The same, another one, and one to escape, in every order that a copy could go wrong in.
    let ids = ["a", "a", "b", "b\"", "b\"", "b", "", "", "a", "bb", "b"];
    let mut buf = FixedBuf::new(1 << 16);
    Scrape::new(&mut buf, &[metric]).family(&metric, |to| {
        for id in ids {
            for value in &values {
                to.sample(&[id, "user"], *value);
            }
        }
    });
    let lines: Vec<String> = ids
        .iter()
        .flat_map(|id| {
            let id = id.replace('"', "\\\"");
            values.iter().map(move |value| format!("m{{id=\"{id}\",mode=\"user\"}} {value}"))
        })
        .collect();
    assert_eq!(text(&buf).lines().skip(2).collect::<Vec<_>>(), lines);
}

#[test]
fn a_family_that_does_not_fit_is_left_out_whole_and_a_later_smaller_one_is_not() {
    let (whole, _) = scraped(all_kinds);
    let heads: Vec<usize> = whole.match_indices("# HELP").map(|(at, _)| at).chain([whole.len()]).collect();
    let families: Vec<&str> = heads.windows(2).map(|ends| &whole[ends[0]..ends[1]]).collect();
    for size in 0..=whole.len() {
        let mut buf = FixedBuf::new(size);
        let mut scrape = Scrape::new(&mut buf, ALL);
        all_kinds(&mut scrape);
        let mishaps = scrape.mishaps();
        let (mut want, mut left_out) = (String::new(), 0);
        for family in &families {
            if want.len() + family.len() <= size {
                want.push_str(family);
            } else {
                left_out += 1;
            }
        }
        assert_eq!(text(&buf), want, "{size} bytes");
        assert_eq!(mishaps, Mishaps { truncated: left_out, ..Mishaps::default() });
    }
}

#[test]
fn a_page_keeps_the_memory_it_was_made_with() {
    let mut buf = FixedBuf::new(256);
    let place = buf.as_ptr();
    for _ in 0..100 {
        Scrape::new(&mut buf, ALL).family(&LOAD, |f| f.sample(&["x".repeat(50).as_str(), "y"], 1_u64));
    }
    assert_eq!(buf.as_ptr(), place);
    assert!(buf.len() <= 256 && buf.ends_with(b" 1\n"));
}

#[test]
fn what_was_not_declared_so_is_left_out_and_counted() {
    const OTHER: Metric = Metric { name: "other", ..LOAD };
    let (page, mishaps) = scraped(|scrape| {
        scrape.family(&OTHER, |f| f.sample(&["a", "b"], 1_u64));
        scrape.family(&EVENTS, |f| f.sample(&["label"], 1_u64));
        scrape.family(&LOAD, |f| {
            f.sample(&["one"], 1_u64);
            f.value(1_u64);
            f.histogram(&["a", "b"], &Histogram::new([Duration::ZERO]));
        });
        scrape.family(&TURN, |f| f.sample(&["loop"], 1_u64));
        scrape.family(&TURN, |f| f.histogram(&["loop"], &Histogram::new([Duration::ZERO])));
    });
    assert_eq!(page, "");
    assert_eq!(mishaps, Mishaps { truncated: 0, undeclared: 2, misshapen: 5 });
}

#[test]
fn a_family_that_was_declared_and_not_scraped_is_missing_but_one_without_samples_is_not() {
    let mut buf = FixedBuf::new(4096);
    let mut scrape = Scrape::new(&mut buf, ALL);
    scrape.family(&EVENTS, |_| ());
    assert_eq!(scrape.missing().map(|metric| metric.name).collect::<Vec<_>>(), [LOAD.name, TURN.name]);
    scrape.family(&LOAD, |_| ());
    scrape.family(&TURN, |_| ());
    assert_eq!(scrape.missing().count(), 0);
    assert_eq!(text(&buf), "");
}

#[test]
fn a_family_may_be_named_by_its_place_in_the_declaration() {
    let (page, mishaps) = scraped(|scrape| {
        scrape.nth(1, |family| family.value(7_u64));
        scrape.nth(1, |family| family.value(8_u64));
        scrape.nth(ALL.len(), |family| family.value(9_u64));
    });
    assert!(page.ends_with("\nonset_events_total 7\n") && page.lines().count() == 3, "{page}");
    assert_eq!(mishaps, Mishaps { undeclared: 2, ..Mishaps::default() });
}

#[test]
fn the_longest_observation_is_remembered() {
    let mut turn = Histogram::new([Duration::from_millis(1)]);
    for ms in [3, 7, 5] {
        turn.observe(Duration::from_millis(ms));
    }
    assert_eq!(turn.max(), Duration::from_millis(7));
}

#[test]
fn text_is_plain_if_each_of_its_bytes_is_wherever_it_stands() {
    let plain = |byte: u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    for byte in 0..=u8::MAX {
        for len in 1..20 {
            for at in 0..len {
                for around in [b' ', b'~', b'!', b'#', b'[', b']', b'a'] {
                    let mut text = vec![around; len];
                    text[at] = byte;
                    assert_eq!(
                        is_plain(&text),
                        plain(byte),
                        "{byte:#x} at {at} of {len}, around it {around:#x}"
                    );
                }
            }
        }
    }
    // Bytes that could hide each other by a carry.
    for one in 0..=u8::MAX {
        for other in 0..=u8::MAX {
            let text = [b'a', b'a', one, other, b'a', b'a', b'a', b'a'];
            assert_eq!(is_plain(&text), plain(one) && plain(other), "{text:?}");
        }
    }
    assert!(is_plain(b""));
}

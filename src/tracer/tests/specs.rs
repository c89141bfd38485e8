//! The registry: what is rendered from it must be sound.

use std::collections::BTreeSet;

use crate::tracer::{TRACERS, document};

#[test]
fn names_are_unique_and_texts_are_there() {
    let mut names = BTreeSet::new();
    let mut metrics = BTreeSet::new();
    for spec in TRACERS {
        assert!(names.insert(spec.name), "{} is there twice", spec.name);
        assert!(!spec.about.is_empty() && !spec.about.ends_with('.'), "{}: one phrase", spec.name);
        for metric in spec.metrics {
            assert!(metrics.insert(metric.name), "{} is scraped twice", metric.name);
            assert!(metric.name.starts_with("onset_") && metric.help.ends_with('.'), "{metric:?}");
        }
        let mut keys = BTreeSet::new();
        for knob in spec.common_knobs().iter().chain(spec.knobs) {
            assert!(keys.insert(knob.key) && !knob.about.is_empty(), "{}.{}", spec.name, knob.key);
        }
        let mut fields = BTreeSet::new();
        for field in spec.fields.iter().chain(document::FIELDS) {
            assert!(fields.insert(field.name) && !field.about.is_empty(), "{}: {}", spec.name, field.name);
        }
        assert!(!spec.captures.is_empty(), "{} can show nothing", spec.name);
    }
}

#[test]
fn a_field_is_either_a_value_or_holds_others() {
    for spec in TRACERS {
        for field in spec.fields {
            let holds = |other: &&crate::tracer::Field| other.name.starts_with(&format!("{}.", field.name));
            assert!(spec.fields.iter().find(holds).is_none(), "{} is both", field.name);
        }
    }
}

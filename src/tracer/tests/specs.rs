//! The registry: what is rendered from it must be sound.

use std::collections::BTreeSet;

use super::watch;
use crate::tracer::{NAME, TEMPLATES, TRACERS, document, mapping};

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
fn what_a_template_makes_can_be_taken_for_no_tracer_of_the_program() {
    for template in TEMPLATES.iter().copied().chain([&watch::TEMPLATE]) {
        let (prefix, keys) = (format!("onset_{}_", template.section), template.base.knobs);
        let metrics = TRACERS.iter().flat_map(|spec| spec.metrics);
        assert_eq!(metrics.filter(|metric| metric.name.starts_with(&prefix)).count(), 0, "{prefix}");
        assert!(template.base.hook.is_none(), "{}: two tracers cannot have one hook", template.section);
        assert!(keys.iter().all(|knob| knob.key != NAME.key), "{}: each has a name", template.section);
    }
    let mapping = mapping(watch::REGISTRY.kinds()).expect("no field has two types");
    assert_eq!(mapping["properties"]["tracer_data"]["properties"]["above"]["type"], "double");
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

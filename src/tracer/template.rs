//! Tracers that the config makes: what they have in common is a template of the program, and what one of them is, is known
//! only when the config was read. Its spec then lives as long as the program does, like those that are compiled in, so
//! that whoever shows its name on the loop neither copies it nor counts references. One that is the same is made once,
//! and there is a limit to all: what is taken for it is bounded however often the config changes.

use std::sync::{Mutex, PoisonError};

use super::{Settings, Spec};
use crate::capture_data::CaptureKind;
use crate::host::Facts;
use crate::knob::{Knob, Value, Values};
use crate::metric::{Metric, MetricKind};

/// Makes a tracer of each `[[section]]` table in the config.
#[derive(Debug)]
pub struct TracerTemplate {
    /// The tables' name.
    pub section: &'static str,
    /// What all its tracers are: their keys, their fields, how they are built. What `describe` says of one of them stands
    /// in place of its name, its purpose, its facts, its captures and its metrics. It has no hook: that is one tracer's own.
    pub base: Spec,
    /// What the tracer with these settings is, or what is wrong with them, beginning with the key.
    pub describe: fn(&Settings) -> Result<Description, String>,
}

/// What one tracer is, beside what its template says. What a reload may change again and again, as a threshold, is no
/// part of it: there is a limit to different ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// What it is for: one phrase.
    pub about: String,
    /// What it reads at each tick.
    pub facts: Facts,
    /// The captures it may ask for.
    pub captures: Vec<CaptureKind>,
    /// The metrics it scrapes, by their place here: `Scrape::nth`.
    pub metrics: Vec<MetricDescription>,
}

/// A metric of one tracer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricDescription {
    /// Begins with `onset_`, the section's name and `_`, so that it is no other's.
    pub name: String,
    /// A full sentence.
    pub help: String,
    /// How its values behave.
    pub kind: MetricKind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
}

/// The key that names a tracer of a template.
pub const NAME: Knob =
    Knob { key: "name", default: Value::Text(""), about: "Its name in documents and metrics" };

/// A longer name fits no table.
const NAME_MAX: usize = 40;

/// Different tracers that the config may make while the program runs: with a kibibyte for each, a mebibyte.
const MADE_MAX: usize = 1024;

impl TracerTemplate {
    /// The spec of the tracer that these settings make. The error begins with the key.
    pub fn spec(&'static self, settings: &Settings) -> Result<&'static Spec, String> {
        static MADE: Mutex<MadeSpecs> = Mutex::new(MadeSpecs(Vec::new()));
        let name = name(settings.values())?;
        let description = (self.describe)(settings)?;
        self.check(&description)?;
        MADE.lock().unwrap_or_else(PoisonError::into_inner).spec(self, name, &description, MADE_MAX)
    }

    fn check(&self, description: &Description) -> Result<(), String> {
        let prefix = format!("onset_{}_", self.section);
        let word = |text: &str| !text.is_empty() && text.bytes().all(is_of_name);
        for metric in &description.metrics {
            let rest = metric.name.strip_prefix(&prefix);
            if !rest.is_some_and(word) || !metric.labels.iter().all(|label| word(label)) {
                return Err(format!("name: it makes a metric {}, which is no name of one", metric.name));
            }
        }
        Ok(())
    }

    fn describes(&self, spec: &Spec, name: &str, description: &Description) -> bool {
        let same = |(metric, described): (&Metric, &MetricDescription)| {
            (metric.name, metric.help, metric.kind, metric.labels)
                == (&*described.name, &*described.help, described.kind, described.labels)
        };
        (spec.name, spec.about, spec.facts) == (name, &*description.about, description.facts)
            && spec.captures == description.captures
            && spec.metrics.len() == description.metrics.len()
            && spec.metrics.iter().zip(&description.metrics).all(same)
    }

    /// Takes memory that is never given back.
    fn make(&'static self, name: &str, description: &Description) -> &'static Spec {
        let text = |text: &str| -> &'static str { Box::leak(text.into()) };
        let metric = |described: &MetricDescription| Metric {
            name: text(&described.name),
            help: text(&described.help),
            kind: described.kind,
            labels: described.labels,
        };
        let metrics: Vec<Metric> = description.metrics.iter().map(metric).collect();
        Box::leak(Box::new(Spec {
            name: text(name),
            about: text(&description.about),
            facts: description.facts,
            captures: Vec::leak(description.captures.clone()),
            metrics: Vec::leak(metrics),
            ..self.base
        }))
    }
}

/// The name of the tracer that these values make.
fn name(values: &Values) -> Result<&str, String> {
    let name = values.text(NAME.key);
    let begins = name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
    if !begins || name.len() > NAME_MAX || !name.bytes().all(is_of_name) {
        return Err(format!(
            "name: must be a to z, 0 to 9 and _, begin with a letter and have {NAME_MAX} characters at most, not \"{name}\""
        ));
    }
    // The agent's own faults are told under this name.
    if name == "onset" { Err("name: onset is the agent itself".into()) } else { Ok(name) }
}

fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'
}

/// The specs that were made so far, each with its template.
struct MadeSpecs(Vec<(&'static TracerTemplate, &'static Spec)>);

impl MadeSpecs {
    /// The one that is described like this: it is made if there is none yet, up to `most` of all.
    fn spec(
        &mut self,
        template: &'static TracerTemplate,
        name: &str,
        description: &Description,
        most: usize,
    ) -> Result<&'static Spec, String> {
        let known = self
            .0
            .iter()
            .find(|(of, spec)| std::ptr::eq(*of, template) && template.describes(spec, name, description));
        if let Some((_, spec)) = known {
            return Ok(spec);
        }
        if self.0.len() >= most {
            return Err(format!(
                "name: {most} different tracers were made of configs since this program began; restart it"
            ));
        }
        let spec = template.make(name, description);
        self.0.push((template, spec));
        Ok(spec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tracer::tests::watch::TEMPLATE;

    fn description(about: &str) -> Description {
        let metric = MetricDescription {
            name: "onset_watch_x".into(),
            help: "A value.".into(),
            kind: MetricKind::Gauge,
            labels: &["container_id"],
        };
        let facts = Facts { load: true, ..Facts::NONE };
        Description { about: about.into(), facts, captures: vec![CaptureKind::Tasks], metrics: vec![metric] }
    }

    #[test]
    fn what_is_described_alike_is_made_once_and_no_more_than_a_limit_are_made() {
        let mut made = MadeSpecs(Vec::new());
        let mut spec = |name: &str, about: &str| made.spec(&TEMPLATE, name, &description(about), 2);
        let first = spec("a", "one").expect("room");
        for _ in 0..1000 {
            assert!(std::ptr::eq(spec("a", "one").expect("it is there"), first));
        }
        let other = spec("a", "other").expect("room");
        assert_eq!((other.name, other.about, other.metrics.len()), ("a", "other", 1));
        let full = spec("b", "one").expect_err("there are two");
        assert!(full.starts_with("name: 2 different tracers") && full.contains("restart"), "{full}");
        assert!(std::ptr::eq(spec("a", "one").expect("it is there still"), first));
    }

    #[test]
    fn what_a_spec_says_of_a_made_tracer_is_its_description_and_the_rest_is_its_template_s() {
        let mut made = MadeSpecs(Vec::new());
        let spec = made.spec(&TEMPLATE, "a", &description("one"), 1).expect("room");
        assert!(spec.facts.load && spec.captures == [CaptureKind::Tasks]);
        assert_eq!((spec.metrics[0].name, spec.metrics[0].labels), ("onset_watch_x", &["container_id"][..]));
        assert_eq!((spec.every, spec.fields.len()), (TEMPLATE.base.every, TEMPLATE.base.fields.len()));
    }

    #[test]
    fn a_metric_that_could_be_another_s_is_refused() {
        for name in ["onset_events_total", "onset_watch_", "onset_watch_a-b", "watch_a", ""] {
            let mut description = description("one");
            description.metrics[0].name = name.into();
            let refused = TEMPLATE.check(&description).expect_err("no name of a metric of [[watch]]");
            assert!(refused.starts_with("name: it makes a metric"), "{refused}");
        }
        assert_eq!(TEMPLATE.check(&description("one")), Ok(()));
    }
}

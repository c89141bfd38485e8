//! Which containers a tracer watches: patterns of what is known of a container. Matching takes
//! nothing from the heap, so a container is matched each time anew, with the names it has by then.

use super::Container;
use crate::host::Role;

/// What a pattern is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attribute {
    Namespace,
    Container,
    Pod,
    Qos,
    Type,
    Runtime,
    Id,
}

const NAMES: [(&str, Attribute); 7] = [
    ("namespace", Attribute::Namespace),
    ("container", Attribute::Container),
    ("pod", Attribute::Pod),
    ("qos", Attribute::Qos),
    ("type", Attribute::Type),
    ("runtime", Attribute::Runtime),
    ("id", Attribute::Id),
];

/// One pattern, as `namespace:kube-*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    of: Attribute,
    glob: String,
}

impl Pattern {
    /// Reads one. The error says what would be right.
    pub fn parse(text: &str) -> Result<Pattern, String> {
        let wrong = || {
            let names: Vec<_> = NAMES.iter().map(|(name, _)| *name).collect();
            format!(
                "must be WHAT:PATTERN, as \"namespace:kube-*\", with WHAT one of {}, not \"{text}\"",
                names.join(", ")
            )
        };
        let (name, glob) = text.split_once(':').ok_or_else(wrong)?;
        let (_, of) = NAMES.iter().find(|(known, _)| *known == name).ok_or_else(wrong)?;
        if glob.is_empty() || glob.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(format!("must have a pattern without blanks after \"{name}:\", not \"{text}\""));
        }
        Ok(Pattern { of: *of, glob: glob.to_owned() })
    }

    /// What is not known of a container matches nothing, not even `*`.
    fn matches(&self, container: Container<'_>) -> bool {
        let text = match self.of {
            Attribute::Namespace => container.namespace(),
            Attribute::Container => container.name(),
            Attribute::Pod => container.pod(),
            Attribute::Qos => container.qos().unwrap_or_default(),
            Attribute::Type => container.role().map_or("", Role::name),
            Attribute::Runtime => container.runtime().unwrap_or_default(),
            Attribute::Id => container.id(),
        };
        !text.is_empty() && glob(self.glob.as_bytes(), text.as_bytes())
    }
}

/// `*` is any text, also none; `?` is one byte; all else is itself.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut seen) = (0, 0);
    // Where to go on when what follows a `*` does not fit: the star takes one byte more.
    let mut star: Option<(usize, usize)> = None;
    while let Some(byte) = text.get(seen) {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at + 1, seen));
                at += 1;
            }
            Some(wanted) if *wanted == b'?' || wanted == byte => {
                at += 1;
                seen += 1;
            }
            _ => match star {
                Some((after, taken)) => {
                    star = Some((after, taken + 1));
                    (at, seen) = (after, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern.get(at..).is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
}

/// Those it takes in: any of `include`, or all where that is empty; and none of `exclude`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    include: Vec<Pattern>,
    exclude: Vec<Pattern>,
}

/// Takes all.
pub static ALL: Filter = Filter { include: Vec::new(), exclude: Vec::new() };

impl Filter {
    /// A filter of patterns that `Pattern::parse` accepts; others are left out.
    #[must_use]
    pub fn new(include: &[String], exclude: &[String]) -> Filter {
        let read = |list: &[String]| list.iter().filter_map(|text| Pattern::parse(text).ok()).collect();
        Filter { include: read(include), exclude: read(exclude) }
    }

    /// Whether this one is watched.
    #[must_use]
    pub fn takes(&self, container: Container<'_>) -> bool {
        let included = self.include.is_empty() || self.include.iter().any(|it| it.matches(container));
        included && !self.exclude.iter().any(|it| it.matches(container))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{Containers, Identity, Text};

    fn list(patterns: &[&str]) -> Vec<String> {
        patterns.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn a_star_is_any_text_and_a_question_mark_one_byte() {
        for (pattern, text, fits) in [
            ("web", "web", true),
            ("web", "web-1", false),
            ("web*", "web", true),
            ("*-proxy", "istio-proxy", true),
            ("*-proxy", "istio-proxy-2", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("??", "ab", true),
            ("??", "abc", false),
            ("*", "x", true),
            ("**", "x", true),
            ("*aab", "aaaab", true),
        ] {
            assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn a_container_matches_any_include_and_no_exclude() {
        let mut table = Containers::fixture(&[("a1", "/kubepods/x"), ("b2", "/docker/y")]);
        let [first, second] = [0, 1].map(|slot| table.in_slot(slot).expect("there").key());
        table.describe(
            first,
            &Identity {
                name: Text::cut("web"),
                pod: Text::cut("web-0"),
                namespace: Text::cut("shop"),
                role: Some(Role::Init),
                qos: Some("burstable"),
                ..Identity::UNKNOWN
            },
        );
        let taken = |include: &[&str], exclude: &[&str]| {
            let filter = Filter::new(&list(include), &list(exclude));
            [first, second].map(|key| table.get(key).is_some_and(|it| filter.takes(it)))
        };
        assert_eq!(taken(&[], &[]), [true, true]);
        assert_eq!(taken(&["namespace:sh*", "id:zz*"], &[]), [true, false]);
        assert_eq!(taken(&[], &["qos:burstable"]), [false, true]);
        assert_eq!(taken(&["container:web"], &["pod:web-?"]), [false, false]);
        assert_eq!(taken(&[], &["type:init"]), [false, true]);
        assert_eq!(taken(&["id:b*"], &[]), [false, true]);
        assert_eq!(taken(&["namespace:*"], &[]), [true, false], "what is not known matches nothing");
        assert!(table.iter().all(|it| ALL.takes(it)));
    }

    #[test]
    fn an_invalid_filter_pattern_is_refused_with_a_valid_example() {
        for (text, hint) in [
            ("kube-system", "WHAT:PATTERN"),
            ("name:x", "namespace, container, pod, qos"),
            ("pod:", "after \"pod:\""),
            ("pod:a b", "without blanks"),
            ("", "WHAT:PATTERN"),
        ] {
            let error = Pattern::parse(text).expect_err("no pattern");
            assert!(error.contains(hint), "{text}: {error}");
        }
    }
}

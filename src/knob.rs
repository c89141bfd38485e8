//! A configuration key as data: its name, its default, its bounds, its sentence. The reader, the
//! printed default file and the errors all come from these tables.

use std::fmt;
use std::time::Duration;

use crate::host::containers::filter::Pattern;

/// A key's kind and default value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// `true` or `false`.
    Flag(bool),
    /// A whole number in a range.
    Count(u64, u64, u64),
    /// A number that is at least 0.
    Number(f64),
    /// A length of time in a range: `"10s"`.
    Time(Duration, Duration, Duration),
    /// A number of bytes in a range: `"16MiB"`.
    Size(u64, u64, u64),
    /// Any text.
    Text(&'static str),
    /// A list of texts that each pass a check.
    Texts(&'static [&'static str], Check),
}

/// What each text of a list must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// A pattern of containers.
    Pattern,
    /// A folder's path, from the root on.
    Folder,
}

impl Check {
    fn text(self, text: &str) -> Result<(), String> {
        match self {
            Check::Pattern => Pattern::parse(text).map(|_| ()),
            Check::Folder if text.starts_with('/') => Ok(()),
            Check::Folder => Err(format!("must be a path that begins with /, not \"{text}\"")),
        }
    }
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Knob {
    /// Its name inside its table.
    pub key: &'static str,
    /// Its kind, default and bounds.
    pub default: Value,
    /// What it is for: printed as the comment above it.
    pub about: &'static str,
}

/// A table of keys, as `[name]`.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// The table's name; empty for the top of the file.
    pub name: &'static str,
    /// What the table is for.
    pub about: &'static str,
    /// Its keys.
    pub knobs: &'static [Knob],
}

/// A value as configured.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ParsedValue {
    Flag(bool),
    Count(u64),
    Number(f64),
    Time(Duration),
    Size(u64),
    Text(String),
    Texts(Vec<String>),
}

/// The values of one table. Asking for a key that its table does not declare, or for another
/// kind than it has, is a mistake in the program and panics, at start and in every test.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Values(pub(crate) Vec<(&'static str, ParsedValue)>);

macro_rules! getter {
    ($name:ident, $kind:ident, $result:ty, $doc:literal) => {
        #[doc = $doc]
        #[must_use]
        pub fn $name(&self, key: &str) -> $result {
            match self.find(key) {
                ParsedValue::$kind(value) => *value,
                other => panic!("config key {key} is {other:?}"),
            }
        }
    };
}

impl Values {
    getter!(flag, Flag, bool, "A `Flag`.");
    getter!(count, Count, u64, "A `Count`.");
    getter!(number, Number, f64, "A `Number`.");
    getter!(time, Time, Duration, "A `Time`.");
    getter!(size, Size, u64, "A `Size`, in bytes.");

    /// A `Text`.
    #[must_use]
    pub fn text(&self, key: &str) -> &str {
        match self.find(key) {
            ParsedValue::Text(value) => value,
            other => panic!("config key {key} is {other:?}"),
        }
    }

    /// A `Texts`.
    #[must_use]
    pub fn texts(&self, key: &str) -> &[String] {
        match self.find(key) {
            ParsedValue::Texts(value) => value,
            other => panic!("config key {key} is {other:?}"),
        }
    }

    /// A `Count` of things in memory.
    #[must_use]
    pub fn len(&self, key: &str) -> usize {
        usize::try_from(self.count(key)).unwrap_or(usize::MAX)
    }

    /// The same but for one key.
    ///
    /// # Panics
    /// If the key does not take this value.
    #[cfg(test)]
    pub(crate) fn with(&self, knob: &Knob, value: &toml::Value) -> Values {
        let Ok(given) = knob.default.accept(value) else { panic!("{} does not take {value}", knob.key) };
        let each =
            self.0.iter().map(|(key, old)| (*key, if *key == knob.key { &given } else { old }.clone()));
        Values(each.collect())
    }

    /// A value as a BPF program takes it: a time in nanoseconds, a size in bytes, a flag as 0 or 1.
    #[must_use]
    pub fn whole_number(&self, key: &str) -> u64 {
        match self.find(key) {
            ParsedValue::Flag(value) => u64::from(*value),
            ParsedValue::Count(value) | ParsedValue::Size(value) => *value,
            ParsedValue::Time(value) => u64::try_from(value.as_nanos()).unwrap_or(u64::MAX),
            other => panic!("config key {key} is {other:?}, which is no whole number"),
        }
    }

    fn find(&self, key: &str) -> &ParsedValue {
        match self.0.iter().find(|(name, _)| *name == key) {
            Some((_, value)) => value,
            None => panic!("config key {key} is not declared"),
        }
    }
}

impl Value {
    /// Takes a value from the file. The error says what would be right.
    pub(crate) fn accept(self, given: &toml::Value) -> Result<ParsedValue, String> {
        match self {
            Value::Flag(_) => match given {
                toml::Value::Boolean(value) => Ok(ParsedValue::Flag(*value)),
                other => Err(format!("must be true or false, not {}", kind(other))),
            },
            Value::Count(_, low, high) => match given {
                toml::Value::Integer(value) => match u64::try_from(*value) {
                    Ok(value) if (low..=high).contains(&value) => Ok(ParsedValue::Count(value)),
                    _ => Err(format!("must be a whole number from {low} to {high}, not {value}")),
                },
                other => Err(format!("must be a whole number, not {}", kind(other))),
            },
            Value::Number(_) => {
                let value = match given {
                    #[allow(clippy::cast_precision_loss)] // a threshold of 2^53 is none
                    toml::Value::Integer(value) => *value as f64,
                    toml::Value::Float(value) => *value,
                    other => return Err(format!("must be a number, not {}", kind(other))),
                };
                if value.is_finite() && value >= 0.0 {
                    Ok(ParsedValue::Number(value))
                } else {
                    Err(format!("must be a number of at least 0, not {value}"))
                }
            }
            Value::Time(_, low, high) => match given {
                toml::Value::String(text) => match time(text) {
                    Some(value) if (low..=high).contains(&value) => Ok(ParsedValue::Time(value)),
                    Some(_) => Err(format!("must be from {} to {}, not \"{text}\"", Shown(low), Shown(high))),
                    None => Err(format!(
                        "must be a duration such as \"10s\", \"500ms\", \"30m\" or \"1h\", not \"{text}\""
                    )),
                },
                other => Err(format!("must be a duration in quotes such as \"10s\", not {}", kind(other))),
            },
            Value::Size(_, low, high) => match given {
                toml::Value::String(text) => match size(text) {
                    Some(value) if (low..=high).contains(&value) => Ok(ParsedValue::Size(value)),
                    Some(_) => Err(format!("must be from {} to {}, not \"{text}\"", Bytes(low), Bytes(high))),
                    None => Err(format!(
                        "must be a size such as \"16MiB\", \"512KiB\" or \"1GiB\", not \"{text}\""
                    )),
                },
                other => Err(format!("must be a size in quotes such as \"16MiB\", not {}", kind(other))),
            },
            Value::Text(_) => match given {
                toml::Value::String(text) => Ok(ParsedValue::Text(text.clone())),
                other => Err(format!("must be a text in quotes, not {}", kind(other))),
            },
            Value::Texts(_, check) => texts(given, check),
        }
    }

    /// The default, as if it had been configured.
    pub(crate) fn given(self) -> ParsedValue {
        match self {
            Value::Flag(value) => ParsedValue::Flag(value),
            Value::Count(value, ..) => ParsedValue::Count(value),
            Value::Number(value) => ParsedValue::Number(value),
            Value::Time(value, ..) => ParsedValue::Time(value),
            Value::Size(value, ..) => ParsedValue::Size(value),
            Value::Text(value) => ParsedValue::Text(value.to_owned()),
            Value::Texts(value, _) => {
                ParsedValue::Texts(value.iter().map(|text| (*text).to_owned()).collect())
            }
        }
    }
}

/// As TOML.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Flag(value) => write!(f, "{value}"),
            Value::Count(value, ..) => write!(f, "{value}"),
            Value::Number(value) => write!(f, "{value:?}"),
            Value::Time(value, ..) => write!(f, "\"{}\"", Shown(*value)),
            Value::Size(value, ..) => write!(f, "\"{}\"", Bytes(*value)),
            Value::Text(value) => write!(f, "\"{value}\""),
            Value::Texts(value, _) => write!(f, "{value:?}"),
        }
    }
}

/// A list of texts. The error names the first that does not pass, by its place.
fn texts(given: &toml::Value, check: Check) -> Result<ParsedValue, String> {
    let toml::Value::Array(list) = given else {
        return Err(format!("must be a list of texts such as [\"a\", \"b\"], not {}", kind(given)));
    };
    let text = |(place, value): (usize, &toml::Value)| match value {
        toml::Value::String(text) => match check.text(text) {
            Ok(()) => Ok(text.clone()),
            Err(error) => Err(format!("[{place}] {error}")),
        },
        other => Err(format!("[{place}] must be a text in quotes, not {}", kind(other))),
    };
    list.iter().enumerate().map(text).collect::<Result<_, _>>().map(ParsedValue::Texts)
}

fn kind(value: &toml::Value) -> String {
    format!("{} ({})", value.type_str(), value.to_string().chars().take(40).collect::<String>())
}

/// A duration in the largest unit that shows it whole.
pub(crate) struct Shown(pub(crate) Duration);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        match ms {
            0 => write!(f, "0s"),
            _ if ms.is_multiple_of(3_600_000) => write!(f, "{}h", ms / 3_600_000),
            _ if ms.is_multiple_of(60_000) && ms >= 120_000 => write!(f, "{}m", ms / 60_000),
            _ if ms.is_multiple_of(1000) => write!(f, "{}s", ms / 1000),
            _ => write!(f, "{ms}ms"),
        }
    }
}

/// A size in the largest unit that shows it whole.
pub(crate) struct Bytes(pub(crate) u64);

const SIZES: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, bytes) = SIZES
            .iter()
            .find(|(_, bytes)| self.0 >= *bytes && self.0.is_multiple_of(*bytes))
            .unwrap_or(&SIZES[3]);
        write!(f, "{}{unit}", self.0 / bytes)
    }
}

/// Reads `"10s"`, `"500ms"`, `"1.5h"`, `"30m"`, `"2d"`.
#[must_use]
pub fn time(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let unit = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number * unit).ok()
}

/// Reads `"16MiB"`, `"512KiB"`, `"1.5GiB"`, `"100B"`.
#[must_use]
pub fn size(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let (_, bytes) = SIZES.iter().find(|(name, _)| *name == unit)?;
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    // the number is not negative, and `as` saturates
    Some((number * *bytes as f64) as u64)
}

fn split(text: &str) -> Option<(f64, &str)> {
    let at = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(at);
    let number = number.trim();
    let plain = !number.is_empty() && number.bytes().all(|c| c.is_ascii_digit() || c == b'.');
    Some((plain.then(|| number.parse().ok())??, unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_are_read_as_people_write_them() {
        assert_eq!(time("10s"), Some(Duration::from_secs(10)));
        assert_eq!(time("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(time("1.5h"), Some(Duration::from_secs(5400)));
        assert_eq!(time("0s"), Some(Duration::ZERO));
        for wrong in ["", "10", "s", "-1s", "10 parsecs", "1e400s", "1..2s", "10S", "infs", "nans"] {
            assert_eq!(time(wrong), None, "{wrong}");
        }
        assert_eq!(size("16MiB"), Some(16 << 20));
        assert_eq!(size("0.5KiB"), Some(512));
        for wrong in ["", "16", "16MB", "MiB", "-1MiB"] {
            assert_eq!(size(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_default_is_shown_as_it_would_be_read() {
        for (shown, seconds) in [("30m", 1800), ("90s", 90), ("1h", 3600), ("60s", 60), ("0s", 0)] {
            let value = Duration::from_secs(seconds);
            assert_eq!(Shown(value).to_string(), shown);
            assert_eq!(time(shown), Some(value));
        }
        for (shown, bytes) in [("1MiB", 1 << 20), ("0B", 0), ("1025B", 1025), ("3GiB", 3 << 30)] {
            assert_eq!(Bytes(bytes).to_string(), shown);
            assert_eq!(size(shown), Some(bytes));
        }
    }
}

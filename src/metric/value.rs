//! Values of samples, as text.

use std::fmt::{self, Write as _};
use std::time::Duration;

use crate::fixed_buf::{FixedBuf, Full};

/// The value of a sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// Written digit by digit.
    Whole(u64),
    /// Written as the shortest number that reads back the same.
    Real(f64),
}

impl From<u64> for Value {
    fn from(value: u64) -> Value {
        Value::Whole(value)
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Value {
        Value::Whole(value.into())
    }
}

impl From<usize> for Value {
    fn from(value: usize) -> Value {
        Value::Whole(value as u64)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Value {
        Value::Whole(value.into())
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Value {
        Value::Real(value)
    }
}

/// In seconds.
impl From<Duration> for Value {
    fn from(value: Duration) -> Value {
        Value::Real(value.as_secs_f64())
    }
}

impl Value {
    /// Appends the value to `buf`. Whole numbers, and most values of an idle host are, take the short way.
    pub(super) fn push(self, buf: &mut FixedBuf) -> Result<(), Full> {
        match self {
            Value::Whole(value) => digits(value, buf),
            Value::Real(0.0) => buf.push(b"0"),
            Value::Real(_) => write!(buf, "{self}").map_err(|fmt::Error| Full),
        }
    }
}

fn digits(mut value: u64, buf: &mut FixedBuf) -> Result<(), Full> {
    /// As many as the largest has.
    const DIGITS: usize = 20;
    let mut text = [b'0'; DIGITS];
    let mut at = DIGITS;
    loop {
        at -= 1;
        #[allow(clippy::cast_possible_truncation)] // below 10
        let digit = (value % 10) as u8;
        if let Some(place) = text.get_mut(at) {
            *place += digit;
        }
        value /= 10;
        if value == 0 {
            return buf.push(text.get(at..).unwrap_or_default());
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Value::Whole(value) => value.fmt(f),
            Value::Real(value) if value.is_nan() => f.write_str("NaN"),
            Value::Real(value) if value.is_infinite() => {
                f.write_str(if value > 0.0 { "+Inf" } else { "-Inf" })
            }
            Value::Real(value) if value == 0.0 || (1e-6..1e16).contains(&value.abs()) => value.fmt(f),
            Value::Real(value) => fmt::LowerExp::fmt(&value, f),
        }
    }
}

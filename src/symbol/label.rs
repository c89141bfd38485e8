//! A symbol's name as people read it. Symbol tables are foreign bytes: what comes out is text of
//! bounded length, however a mangled name unfolds.

use std::fmt::{self, Write as _};

/// A longer name tells a reader no more; templates unfold to megabytes.
const LABEL_MAX: usize = 256;

/// Longer mangled names are shown as they are: demangling one costs more than it tells.
const MANGLED_MAX: usize = 2048;

/// A name that needs no demangling.
pub(super) fn plain(name: &[u8]) -> Box<str> {
    let mut label = Label::default();
    // A label that is full has said all that it can.
    let _ = label.write_str(&String::from_utf8_lossy(name.get(..4 * LABEL_MAX).unwrap_or(name)));
    label.finish()
}

/// A linker's name for a function: Rust without its hash, C++ without parameters.
pub(super) fn demangled(name: &[u8]) -> Box<str> {
    let Some(text) = std::str::from_utf8(name).ok().filter(|text| text.len() <= MANGLED_MAX) else {
        return plain(name);
    };
    let mut label = Label::default();
    if let Ok(rust) = rustc_demangle::try_demangle(text) {
        if write!(label, "{rust:#}").is_ok() || label.full {
            return label.finish();
        }
    } else if text.starts_with("_Z")
        && let Ok(cpp) = cpp_demangle::Symbol::new(text)
    {
        let short = cpp_demangle::DemangleOptions::new().no_params().no_return_type();
        if cpp.structured_demangle(&mut label, &short).is_ok() || label.full {
            return label.finish();
        }
    }
    plain(name)
}

/// Text that refuses more than `LABEL_MAX` bytes, which stops whoever writes it.
#[derive(Default)]
struct Label {
    text: String,
    full: bool,
}

impl Label {
    fn finish(mut self) -> Box<str> {
        if self.full {
            self.text.push('…');
        }
        self.text.into_boxed_str()
    }
}

impl fmt::Write for Label {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        let room = LABEL_MAX.saturating_sub(self.text.len());
        let fits = more.floor_char_boundary(room.min(more.len()));
        self.text.push_str(more.get(..fits).unwrap_or_default());
        self.full |= fits < more.len();
        if self.full { Err(fmt::Error) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn demangled_names_have_no_rust_hash_and_no_cpp_parameters() {
        for (mangled, name) in [
            ("main", "main"),
            ("_ZN4core9panicking9panic_fmt17h5f1a6fd39197ad62E", "core::panicking::panic_fmt"),
            ("_RNvCs1234_7mycrate3foo", "mycrate::foo"),
            ("_ZNSt6vectorIiSaIiEE9push_backERKi", "std::vector<int, std::allocator<int> >::push_back"),
            ("_Z4spinILi3EEii", "spin<3>"),
            ("_Z", "_Z"),
            ("_ZN3foo", "_ZN3foo"),
        ] {
            assert_eq!(&*demangled(mangled.as_bytes()), name, "{mangled}");
        }
    }

    #[test]
    fn an_exponentially_growing_mangled_name_is_truncated() {
        // A template whose both arguments are the template before it: 2^30 letters if let.
        let mut mangled = String::from("_Z1fI1pIiiE");
        let mut last = String::from("S0_");
        for level in 1..30 {
            mangled.push_str(&format!("S_I{last}{last}E"));
            last =
                format!("S{}_", char::from_digit(level, 36).map_or('0', |digit| digit.to_ascii_uppercase()));
        }
        mangled.push_str("EvT_");
        let label = demangled(mangled.as_bytes());
        assert!(label.len() <= LABEL_MAX + '…'.len_utf8(), "{}", label.len());
    }

    #[test]
    fn non_utf8_and_long_names_stay_bounded() {
        assert_eq!(&*demangled(b"\xff\xfe"), "\u{fffd}\u{fffd}");
        let long = demangled(&[b'x'; 100_000]);
        assert!(long.ends_with("x…") && long.len() <= LABEL_MAX + 3, "{}", long.len());
        let wide = plain("é".repeat(300).as_bytes());
        assert!(wide.ends_with("é…"));
    }
}

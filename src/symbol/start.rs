//! Where a user stack ends: in a start routine of the C library, which nothing has called.

/// Names of start routines. C reserves them for its library, so no program has a function of this name.
const NAMES: [&str; 3] = ["_start", "__clone", "__clone3"];
const PREFIX: &str = "__libc_start_";

/// How many frames of a stack, the innermost first, are calls. What follows a start routine is none: that
/// routine has other things in the register of the frame pointer (in a static program a constructor's
/// address), and a walk along frame pointers takes them for its caller.
pub(super) fn calls(names: &[&str]) -> usize {
    let is_start = |name: &&str| name.starts_with(PREFIX) || NAMES.contains(name);
    let Some(first) = names.iter().position(is_start) else { return names.len() };
    first + names.iter().skip(first).take_while(|name| is_start(name)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_routine_has_no_caller() {
        let main = ["burn", "main", "__libc_start_call_main"];
        assert_eq!(calls(&main), 3);
        assert_eq!(calls(&[&main[..], &["register_tm_clones", "[unknown]"]].concat()), 3);
        assert_eq!(calls(&[&main[..], &["__libc_start_main_impl", "_start", "[unknown]"]].concat()), 5);
        assert_eq!(calls(&["poll", "start_thread", "__clone3", "[unknown]"]), 3);
    }

    #[test]
    fn a_stack_without_a_start_routine_is_whole() {
        for names in [&[][..], &["burn"], &["burn", "libc.so.6+0x27249"], &["my_start", "_started", "x"]] {
            assert_eq!(calls(names), names.len(), "{names:?}");
        }
    }
}

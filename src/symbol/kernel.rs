//! Names of kernel addresses, out of one pass over /proc/kallsyms that keeps nothing but what was
//! asked for: a table of all symbols would be 10 MB and more.

use std::io::Read;

use super::lines::{each_line, hex};
use super::{UNKNOWN, label};

/// No kernel function is longer. An address further above the nearest symbol lies in code that
/// kallsyms does not list, and that symbol's name would be a lie.
const FUNCTION_MAX: u64 = 1 << 20;

/// A longer kallsyms is not one: the largest kernels have a few hundred thousand symbols.
const KALLSYMS_MAX: u64 = 256 << 20;

/// The nearest symbol at or below an address, so far.
#[derive(Clone, Default)]
struct Nearest {
    start: u64,
    name: Vec<u8>,
}

/// The names of `addresses`, which are sorted; modules' and BPF programs' with their `[module]`.
///
/// An address without a symbol is `[unknown]`, and so are all where kptr_restrict hides the
/// addresses: writing the number itself into a document would undo what that is set for.
pub(super) fn names(kallsyms: impl Read, addresses: &[u64]) -> Vec<Box<str>> {
    let mut nearest = vec![Nearest::default(); addresses.len()];
    // What was read before an error still names what it names.
    let _ = each_line(kallsyms, KALLSYMS_MAX, |line| {
        let Some((start, name)) = text_symbol(line) else { return };
        // Only the first address above needs to hear of it: the sweep below tells the others.
        let first = addresses.partition_point(|address| *address < start);
        if let Some(best) = nearest.get_mut(first)
            && best.start < start
        {
            best.start = start;
            best.name.clear();
            best.name.extend_from_slice(name);
        }
    });
    let mut below = &Nearest::default();
    let mut names = Vec::with_capacity(addresses.len());
    for (address, best) in addresses.iter().zip(&nearest) {
        if best.start > below.start {
            below = best;
        }
        let known = below.start != 0 && address - below.start <= FUNCTION_MAX;
        names.push(if known { pretty(&below.name) } else { UNKNOWN.into() });
    }
    names
}

/// Address and name (with module, if any) of a line of kallsyms, if it is code with an address.
fn text_symbol(line: &[u8]) -> Option<(u64, &[u8])> {
    let space = line.iter().position(|byte| *byte == b' ')?;
    let (address, rest) = line.split_at(space);
    let [b' ', b't' | b'T' | b'w' | b'W', b' ', name @ ..] = rest else { return None };
    let start = hex(address).filter(|start| *start != 0)?;
    (!name.is_empty()).then_some((start, name))
}

/// kallsyms parts a module from the name by a tab.
fn pretty(name: &[u8]) -> Box<str> {
    label::plain(name).replace('\t', " ").into_boxed_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIXTURE: &[u8] = include_bytes!("../../fuzz/corpus/kallsyms/modules");

    #[test]
    fn each_address_gets_the_nearest_symbol_at_or_below_it() {
        let asked = [
            0xffff_ffff_8100_0000, // three aliases: the first is it
            0xffff_ffff_8100_0fff,
            0xffff_ffff_8100_1000,
            0xffff_ffff_8100_1234, // data between must not be taken
            0xffff_ffff_c000_1004, // in the module that is listed last
            0xffff_ffff_c010_0010,
            0xffff_ffff_c010_0010,
            0xffff_ffff_c020_0020,
        ];
        let names = names(FIXTURE, &asked);
        let want = [
            "srso_alias_untrain_ret",
            "srso_alias_untrain_ret",
            "do_idle",
            "do_idle",
            "ext4_readdir [ext4]",
            "nf_hook_slow [nf_tables]",
            "nf_hook_slow [nf_tables]",
            "bpf_prog_6deef7357e7b4530_sample [bpf]",
        ];
        assert_eq!(names.iter().map(|name| &**name).collect::<Vec<_>>(), want);
    }

    #[test]
    fn addresses_far_from_all_kernel_symbols_have_no_name() {
        let names = names(FIXTURE, &[0, 0x1000, 0xffff_ffff_8200_0000, u64::MAX]);
        assert!(names.iter().all(|name| &**name == UNKNOWN), "{names:?}");
    }

    #[test]
    fn hidden_kallsyms_addresses_and_broken_lines_name_nothing() {
        let asked = [1, 0xffff_ffff_8100_0000];
        for fixture in [
            include_bytes!("../../fuzz/corpus/kallsyms/restricted").as_slice(),
            include_bytes!("../../fuzz/corpus/kallsyms/hostile"),
            b"",
        ] {
            assert!(names(fixture, &asked).iter().all(|name| &**name == UNKNOWN));
        }
        assert!(names(FIXTURE, &[]).is_empty());
    }

    #[test]
    fn a_huge_kallsyms_line_does_not_hide_the_next() {
        let mut text = b"ffffffff81000000 T ".to_vec();
        text.extend([b'x'; 100_000]);
        text.extend(b"\nffffffff81000010 T after\nffffffff81000018 T cut");
        assert_eq!(&*names(text.as_slice(), &[0xffff_ffff_8100_0020])[0], "after");
    }

    #[test]
    fn functions_of_the_running_kernel_are_found_four_bytes_in() {
        let text = std::fs::read("/proc/kallsyms").expect("kallsyms");
        let mut symbols = Vec::new();
        each_line(text.as_slice(), u64::MAX, |line| {
            symbols.extend(text_symbol(line).map(|(start, name)| (start, pretty(name))));
        })
        .expect("a slice");
        symbols.sort();
        symbols.dedup_by_key(|symbol| symbol.0);
        let mut asked = Vec::new();
        for pair in symbols.windows(2).step_by(97) {
            if let [(start, name), (next, _)] = pair
                && next - start > 4
            {
                asked.push((start + 4, name.clone()));
            }
        }
        let addresses: Vec<u64> = asked.iter().map(|(address, _)| *address).collect();
        let began = std::time::Instant::now();
        let names = names(std::fs::File::open("/proc/kallsyms").expect("kallsyms"), &addresses);
        eprintln!("{} addresses in {:?}", addresses.len(), began.elapsed());
        let aliases = |address: u64, name: &str| {
            let line = format!("{:016x} ", address - 4);
            String::from_utf8_lossy(&text)
                .lines()
                .any(|l| l.starts_with(&line) && l.contains(name.split(' ').next().unwrap_or("?")))
        };
        for ((address, want), name) in asked.iter().zip(&names) {
            assert!(want == name || aliases(*address, name), "{address:x}: {want} is not {name}");
        }
    }
}

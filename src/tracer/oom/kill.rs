//! A record of bpf/oom.bpf.c: `struct kill`.

use crate::host::{Key, Text};
use crate::layout::oom as layout;

/// The kernel opens no longer path.
const PATH_MAX: usize = 4096;

/// What stands for names that are missing at a path's beginning.
const MISSING: &str = "...";

/// What is no text in a name.
const ODD: &str = "\u{fffd}";

/// A limit that is none.
const NO_LIMIT: u64 = u64::MAX;

/// A process that plays a part in a kill.
#[derive(Clone, Copy, Debug)]
pub(super) struct Party {
    pub(super) pid: u32,
    /// Empty: not known.
    pub(super) comm: Text<64>,
    pub(super) container: Option<Key>,
}

/// One OOM kill.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kill {
    pub(super) victim: Party,
    /// Who asked for memory when there was none.
    pub(super) killer: Party,
    /// What the victim held.
    pub(super) victim_rss_bytes: Option<u64>,
    pub(super) usage_bytes: u64,
    pub(super) limit_bytes: Option<u64>,
    /// The cgroup that these are of.
    pub(super) cgroup_path: Text<PATH_MAX>,
    /// Whether names are missing at its beginning.
    pub(super) cut: bool,
}

impl Kill {
    /// Reads a record. `None` for one that is none.
    pub(super) fn parse(record: &[u8]) -> Option<Kill> {
        let (kill, names) = layout::Kill::read(record)?;
        let names = names.get(..usize::try_from(kill.names_bytes).ok()?)?;
        let (cgroup_path, cut) = path(names, kill.cut != 0);
        let party =
            |pid, name, container| Party { pid, comm: comm(name), container: Key::from_bits(container) };
        Some(Kill {
            victim: party(kill.victim_pid, &kill.victim_comm, kill.victim_container),
            killer: party(kill.trigger_pid, &kill.trigger_comm, kill.trigger_container),
            victim_rss_bytes: Some(kill.victim_rss_bytes).filter(|bytes| *bytes > 0),
            usage_bytes: kill.usage_bytes,
            limit_bytes: Some(kill.limit_bytes).filter(|limit| *limit != NO_LIMIT),
            cgroup_path,
            cut,
        })
    }
}

/// Any bytes as a record: what is read is what the record holds, bounded and fit to be shown.
#[cfg(any(test, feature = "fuzz"))]
pub(in crate::tracer) fn fuzz(record: &[u8]) {
    let Some(kill) = crate::fuzz::heap::untouched(|| Kill::parse(record)) else { return };
    assert!(record.len() >= layout::Kill::SIZE, "a record was made up");
    let held = |name: &str| record.windows(name.len().max(1)).any(|bytes| bytes == name.as_bytes());
    for party in [&kill.victim, &kill.killer] {
        assert!(party.comm.len() <= 16 && !party.comm.contains('\0'));
        assert!(party.comm.is_empty() || held(&party.comm));
    }
    let path =
        kill.cgroup_path.strip_prefix(if kill.cut { MISSING } else { "" }).unwrap_or(&kill.cgroup_path);
    assert!((path.starts_with('/') || kill.cut && path.is_empty()) && !path.contains('\0'));
    assert_ne!(kill.limit_bytes, Some(NO_LIMIT));
    let more = [record, &[0xff; 7]].concat();
    let padded = Kill::parse(&more).map(|padded| (padded.victim.pid, padded.cgroup_path.len()));
    assert_eq!(padded, Some((kill.victim.pid, kill.cgroup_path.len())), "the ring rounds records up");
}

/// What comes before the first zero, up to the first byte that is no UTF-8.
fn text(raw: &[u8]) -> &str {
    let text = raw.split(|byte| *byte == 0).next().unwrap_or_default();
    match text.utf8_chunks().next() {
        Some(chunk) => chunk.valid(),
        None => "",
    }
}

fn comm(raw: &[u8; 16]) -> Text<64> {
    Text::cut(text(raw))
}

/// The path of names that stand innermost first, each with its zero, and whether names are missing at its
/// beginning: `cut` says that the kernel's side had no room for them.
fn path(names: &[u8], mut cut: bool) -> (Text<PATH_MAX>, bool) {
    let mut filled = [0; PATH_MAX];
    // The path is written from the buffer's end on, for each name stands before those that were read.
    let mut start = PATH_MAX;
    for name in names.split_inclusive(|byte| *byte == 0) {
        let room = filled.get_mut(..start).unwrap_or_default();
        let Some(length) = name.strip_suffix(&[0]).and_then(|name| write_last(name, room)) else {
            cut = true;
            break;
        };
        start -= length;
    }
    let path = std::str::from_utf8(filled.get(start..).unwrap_or_default()).unwrap_or_default();
    if cut {
        // What is shown in place of them takes a little room, too.
        return (Text::joined(&[MISSING, path]).unwrap_or_else(|| Text::cut(path)), true);
    }
    (Text::cut(if path.is_empty() { "/" } else { path }), false)
}

/// Writes `/` and a name at the end of the room, and returns their length. `None`: the room is too small.
fn write_last(name: &[u8], room: &mut [u8]) -> Option<usize> {
    let pieces = || {
        let chunks = name.utf8_chunks();
        chunks.flat_map(|chunk| [chunk.valid(), if chunk.invalid().is_empty() { "" } else { ODD }])
    };
    let length = 1 + pieces().map(str::len).sum::<usize>();
    let start = room.len().checked_sub(length)?;
    let (slash, mut rest) = room.get_mut(start..)?.split_first_mut()?;
    *slash = b'/';
    for piece in pieces() {
        let (place, after) = rest.split_at_mut_checked(piece.len())?;
        place.copy_from_slice(piece.as_bytes());
        rest = after;
    }
    Some(length)
}

#[cfg(test)]
pub(in crate::tracer) mod tests {
    use super::*;

    /// A record of a kill in a cgroup of these names, from the root's child down.
    pub(in crate::tracer) fn record(key: Option<Key>, limit_bytes: u64, names: &[&str]) -> Vec<u8> {
        let container = key.map_or(0, Key::to_bits);
        let names: Vec<u8> = names.iter().rev().flat_map(|name| [name.as_bytes(), &[0]].concat()).collect();
        let head = layout::Kill {
            victim_container: container,
            trigger_container: container,
            usage_bytes: 5_000,
            limit_bytes,
            victim_pid: 77,
            trigger_pid: 78,
            victim_comm: *b"victim\0garbage!!",
            trigger_comm: *b"kill\xffer\0\0\0\0\0\0\0\0\0",
            victim_rss_bytes: 4_500,
            names_bytes: u32::try_from(names.len()).expect("a path"),
            cut: 0,
        };
        [&head.bytes()[..], &names].concat()
    }

    /// The same record with its head changed.
    fn changed(record: &[u8], change: impl FnOnce(&mut layout::Kill)) -> Vec<u8> {
        let (mut head, names) = layout::Kill::read(record).expect("a record");
        change(&mut head);
        [&head.bytes()[..], names].concat()
    }

    #[test]
    fn a_record_is_read_as_the_program_lays_it_out() {
        let key = Key { slot: 3, generation: 9 };
        let kill = Kill::parse(&record(Some(key), 6_000, &["docker", "abc"])).expect("a record");
        assert_eq!((kill.victim.pid, &*kill.victim.comm, kill.victim.container), (77, "victim", Some(key)));
        assert_eq!((kill.killer.pid, &*kill.killer.comm), (78, "kill"));
        assert_eq!(
            (kill.usage_bytes, kill.limit_bytes, &*kill.cgroup_path),
            (5_000, Some(6_000), "/docker/abc")
        );
        let kill = Kill::parse(&record(None, NO_LIMIT, &[])).expect("a record");
        assert_eq!((kill.victim.container, kill.limit_bytes, &*kill.cgroup_path), (None, None, "/"));
    }

    #[test]
    fn a_record_that_is_cut_or_claims_more_than_it_has_is_refused() {
        let whole = record(None, 1, &["a", "b"]);
        assert!((0..whole.len()).all(|len| Kill::parse(&whole[..len]).is_none()));
        let endless = changed(&whole, |head| head.names_bytes = u32::MAX);
        assert!(Kill::parse(&endless).is_none());
    }

    #[test]
    fn a_path_is_whole_up_to_the_longest_that_the_kernel_opens() {
        let (long, longest) = ("n".repeat(144), "m".repeat(255));
        let deep: Vec<&str> = std::iter::repeat_n("l", 200).collect();
        for names in [&[&*long][..], &["docker", &longest, "x"], &[&*longest; 15], &deep] {
            let kill = Kill::parse(&record(None, 1, names)).expect("a record");
            assert_eq!((&*kill.cgroup_path, kill.cut), (&*format!("/{}", names.join("/")), false));
        }
        let full: Vec<&str> = std::iter::repeat_n(&*longest, 16).collect();
        let kill = Kill::parse(&record(None, 1, &full)).expect("a record");
        assert_eq!((kill.cgroup_path.len(), kill.cut), (PATH_MAX, false));
    }

    #[test]
    fn a_path_that_is_cut_says_so_and_keeps_its_end() {
        let raw = changed(&record(None, 1, &["pods", "a"]), |head| head.cut = 1);
        let kill = Kill::parse(&raw).expect("a record");
        assert_eq!((&*kill.cgroup_path, kill.cut), (".../pods/a", true));
        let names: Vec<String> = (0..17).map(|level| format!("{level:0>255}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let kill = Kill::parse(&record(None, 1, &names)).expect("a record");
        assert!(kill.cut && kill.cgroup_path.ends_with("16") && kill.cgroup_path.len() <= PATH_MAX);
    }

    #[test]
    fn a_name_that_is_no_text_is_shown_as_far_as_it_is() {
        let mut raw = record(None, 1, &["docker", "a-b"]);
        let dash = raw.len() - "-b\0docker\0".len();
        raw[dash] = 0xff;
        let kill = Kill::parse(&raw).expect("a record");
        assert_eq!((&*kill.cgroup_path, kill.cut), ("/docker/a\u{fffd}b", false));
        // Each odd byte is shown by three, so a path of them is longer as text than in the kernel.
        let odd = |count: usize| {
            let mut raw = record(None, 1, &["docker", &"x".repeat(count)]);
            raw[layout::Kill::SIZE..][..count].fill(0xff);
            Kill::parse(&raw).expect("a record")
        };
        let kill = odd(1300);
        assert_eq!((&*kill.cgroup_path, kill.cut), (&*format!("/docker/{}", "\u{fffd}".repeat(1300)), false));
        assert_eq!((&*odd(1366).cgroup_path, odd(1366).cut), ("...", true));
    }
}

//! Capabilities: which ones the agent uses and for what, which it has, and how it drops the others.
//! The sets are read and written by capget(2) and capset(2), each thread's own.

use std::io;

/// A capability that the agent may use.
#[derive(Clone, Copy, Debug)]
pub struct Capability {
    /// Its name.
    pub name: &'static str,
    /// Its number, as in <linux/capability.h>.
    number: u32,
    /// What it is for.
    pub purpose: &'static str,
    /// What is lost without it.
    pub without: &'static str,
    /// Whether this host needs it.
    needed: fn(&Host) -> bool,
    /// Of use on every host, though none needs it: the unit and the DaemonSet go without.
    pub optional: bool,
}

/// The properties of the host that decide which capabilities are needed.
#[derive(Clone, Copy, Debug)]
pub struct Host {
    /// The kernel's release.
    pub release: (u32, u32),
    /// Whether the kernel describes its types.
    pub btf: bool,
    /// Whether it has PSI, but does not let this process arm a trigger.
    pub triggers_refused: bool,
    /// Whether CAP_PERFMON alone does not allow sampling here (kernel.perf_event_paranoid).
    pub sampling_guarded: bool,
    /// Whether this process may lock as much memory as it likes.
    pub memlock: bool,
    /// Whether the kernel's addresses are visible to everyone.
    pub open_symbols: bool,
}

/// The first kernel whose maps are not locked memory.
const MAPS_ACCOUNTED: (u32, u32) = (5, 11);

/// Every capability that is of use, the most important first.
pub const CAPABILITIES: [Capability; 8] = [
    Capability {
        name: "CAP_BPF",
        number: 39,
        purpose: "loads and attaches BPF programs",
        without: "no program is loaded: only what /proc shows is left",
        needed: |_| true,
        optional: false,
    },
    Capability {
        name: "CAP_PERFMON",
        number: 38,
        purpose: "samples all CPUs and looks into the kernel",
        without: "no program is loaded: only what /proc shows is left",
        needed: |_| true,
        optional: false,
    },
    Capability {
        name: "CAP_SYS_PTRACE",
        number: 19,
        purpose: "sees which files other users' processes run, also in their mount namespaces",
        without: "code of other users' processes has no names in flame graphs",
        needed: |_| true,
        optional: false,
    },
    Capability {
        name: "CAP_DAC_READ_SEARCH",
        number: 2,
        purpose: "reads files of containers and their runtimes, and secrets, whoever owns them",
        without: "what only its owner may read stays unread: code in containers and containers' names",
        needed: |_| true,
        optional: false,
    },
    Capability {
        name: "CAP_SYSLOG",
        number: 34,
        purpose: "sees the addresses in /proc/kallsyms",
        without: "frames of the kernel have no names, and direct I/O has no files",
        needed: |host| !host.open_symbols,
        optional: false,
    },
    Capability {
        name: "CAP_CHECKPOINT_RESTORE",
        number: 40,
        purpose: "opens files that processes have mapped and that were deleted since",
        without: "libraries that were replaced while in use have no names in flame graphs; all else works",
        needed: |_| false,
        optional: true,
    },
    Capability {
        name: "CAP_SYS_RESOURCE",
        number: 24,
        purpose: "before Linux 5.11 locks memory for maps, and on some kernels before 6.5 arms PSI triggers",
        without: "maps are refused before 5.11 (LimitMEMLOCK=infinity helps), and tracers look at their interval only",
        needed: |host| host.release < MAPS_ACCOUNTED && !host.memlock || host.triggers_refused,
        optional: false,
    },
    Capability {
        name: "CAP_SYS_ADMIN",
        number: SYS_ADMIN.trailing_zeros(),
        purpose: "samples where kernel.perf_event_paranoid is over 2 on Debian and its kin, and reads /proc/PID/stack without BTF",
        without: "there are no flame graphs there (sysctl kernel.perf_event_paranoid=2 helps), and no kernel stacks without BTF",
        needed: |host| !host.btf || host.sampling_guarded,
        optional: false,
    },
];

/// What a walk of /proc for stacks takes.
pub const SYS_ADMIN: u64 = 1 << 21;

/// What the bounding set is changed by.
pub(super) const SETPCAP: u64 = 1 << 8;

const BPF: u64 = 1 << 39;
const PERFMON: u64 = 1 << 38;
const SYSLOG: u64 = 1 << 34;
const SYS_PTRACE: u64 = 1 << 19;
const DAC_READ_SEARCH: u64 = 1 << 2;
const CHECKPOINT_RESTORE: u64 = 1 << 40;

/// What is kept after start wherever it is held: the first six of `CAPABILITIES`.
pub const KEPT: u64 = BPF | PERFMON | SYS_PTRACE | DAC_READ_SEARCH | SYSLOG | CHECKPOINT_RESTORE;

impl Capability {
    /// Whether this host needs it.
    #[must_use]
    pub fn needed(&self, host: &Host) -> bool {
        (self.needed)(host)
    }

    /// Whether it is in this set.
    #[must_use]
    pub fn is_in(&self, set: u64) -> bool {
        set >> self.number & 1 == 1
    }

    /// Whether the kernel lets one with this set do what it is for: it takes CAP_SYS_ADMIN in the place of
    /// what was once a part of it.
    #[must_use]
    pub fn is_held(&self, set: u64) -> bool {
        self.is_in(set)
            || set & SYS_ADMIN != 0 && (BPF | PERFMON | CHECKPOINT_RESTORE) >> self.number & 1 == 1
    }
}

/// A runtime that does not know CAP_BPF or CAP_PERFMON gives the older right to all of it instead.
pub(super) const fn stand_ins(permitted: u64) -> u64 {
    if permitted & BPF == 0 || permitted & PERFMON == 0 { SYS_ADMIN } else { 0 }
}

/// <linux/capability.h>: two halves of 32 capabilities each.
const VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Half {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

fn checked(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn sets() -> io::Result<[Half; 2]> {
    let mut header = Header { version: VERSION_3, pid: 0 };
    let mut halves = [Half::default(); 2];
    // SAFETY: version 3 of the header makes the kernel write two halves, which are ours.
    checked(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, halves.as_mut_ptr()) })?;
    Ok(halves)
}

fn joined(halves: [Half; 2], of: impl Fn(&Half) -> u32) -> u64 {
    let [low, high] = halves;
    u64::from(of(&low)) | u64::from(of(&high)) << 32
}

/// The capabilities that this thread can use now; none where the kernel does not tell.
#[must_use]
pub fn held() -> u64 {
    sets().map_or(0, |halves| joined(halves, |half| half.effective))
}

/// Those that it may take on.
pub(super) fn permitted() -> io::Result<u64> {
    sets().map(|halves| joined(halves, |half| half.permitted))
}

/// From now on this thread acts with the first set, and can take on no more than the second.
pub(super) fn set(effective: u64, permitted: u64) -> io::Result<()> {
    let low = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).unwrap_or(0);
    let half = |shift: u32| Half {
        effective: low(effective >> shift),
        permitted: low(permitted >> shift),
        inheritable: 0,
    };
    let mut header = Header { version: VERSION_3, pid: 0 };
    let halves = [half(0), half(32)];
    // SAFETY: version 3 of the header makes the kernel read two halves, which are ours.
    checked(unsafe { libc::syscall(libc::SYS_capset, &raw mut header, halves.as_ptr()) })
}

/// Takes everything else out of the bounding set.
pub(super) fn bound(set: u64) -> io::Result<()> {
    for number in 0..u64::BITS {
        if set >> number & 1 == 1 {
            continue;
        }
        // SAFETY: takes no pointers.
        let done = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(number), 0, 0, 0) };
        match checked(done.into()) {
            // The first that this kernel does not know.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Ok(()),
            done => done?,
        }
    }
    Ok(())
}

/// Nothing is handed on to a program, should one ever be started.
pub(super) fn clear_ambient() -> io::Result<()> {
    // SAFETY: takes no pointers.
    checked(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) }.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kept_capabilities_are_those_of_the_table() {
        let kept: Vec<_> =
            CAPABILITIES.iter().filter(|right| right.is_in(KEPT)).map(|right| right.name).collect();
        assert_eq!(
            kept,
            [
                "CAP_BPF",
                "CAP_PERFMON",
                "CAP_SYS_PTRACE",
                "CAP_DAC_READ_SEARCH",
                "CAP_SYSLOG",
                "CAP_CHECKPOINT_RESTORE"
            ]
        );
        assert_eq!(KEPT.count_ones(), 6);
    }

    #[test]
    fn a_capability_needed_on_any_host_is_not_optional() {
        let worst = Host {
            release: (5, 10),
            btf: false,
            triggers_refused: true,
            sampling_guarded: true,
            memlock: false,
            open_symbols: false,
        };
        assert!(CAPABILITIES.iter().all(|right| right.needed(&worst) != right.optional));
    }

    #[test]
    fn older_kernels_need_more_capabilities() {
        let host = |release, btf, memlock| Host {
            release,
            btf,
            triggers_refused: false,
            sampling_guarded: false,
            memlock,
            open_symbols: false,
        };
        let asks = |name: &str, host: Host| {
            CAPABILITIES.iter().any(|right| right.name == name && right.needed(&host))
        };
        assert!(asks("CAP_SYS_RESOURCE", host((5, 10), true, false)));
        assert!(!asks("CAP_SYS_RESOURCE", host((5, 10), true, true)), "nothing is left to be locked for");
        assert!(asks("CAP_SYS_RESOURCE", Host { triggers_refused: true, ..host((6, 1), true, true) }));
        assert!(asks("CAP_SYS_ADMIN", Host { sampling_guarded: true, ..host((6, 1), true, true) }));
        assert!(!asks("CAP_SYS_RESOURCE", host((6, 12), true, false)));
        assert!(!asks("CAP_SYS_ADMIN", host((5, 10), true, false)));
        assert!(asks("CAP_SYS_ADMIN", host((6, 12), false, false)));
        assert!(!asks("CAP_SYSLOG", Host { open_symbols: true, ..host((6, 12), true, true) }));
    }

    #[test]
    fn cap_sys_admin_is_kept_only_where_a_finer_capability_is_missing() {
        assert_eq!(stand_ins(u64::MAX), 0);
        assert_eq!(stand_ins(!BPF), SYS_ADMIN);
        assert_eq!(stand_ins(!PERFMON), SYS_ADMIN);
        let held: Vec<_> =
            CAPABILITIES.iter().filter(|right| right.is_held(SYS_ADMIN)).map(|right| right.name).collect();
        assert_eq!(held, ["CAP_BPF", "CAP_PERFMON", "CAP_CHECKPOINT_RESTORE", "CAP_SYS_ADMIN"]);
    }
}

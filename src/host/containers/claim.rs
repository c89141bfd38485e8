//! Whether a cgroup is the container whose id it has. A name is no proof: whoever may make cgroups can
//! give one another container's id. So it counts where a cgroup is, and what the runtime noted of it.

/// Who may make cgroups where a container's is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Maker {
    /// The host's own services alone.
    #[default]
    Host,
    /// A container may, within its own cgroup.
    Container,
    /// Others than the folder's owner may, by its mode; or it is not known who may.
    Others,
    /// The user of this id may: a part of the tree was handed to that user.
    User(u32),
}

/// Whose a folder is, and what its mode lets others do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// The user whose folder it is.
    pub owner: u32,
    /// The group whose folder it is.
    pub group: u32,
    /// Its mode, as stat(2) has it.
    pub mode: u32,
}

impl Access {
    /// Who may make folders in it, where the host's own folders are as `host` is.
    #[must_use]
    pub fn maker(self, host: Access) -> Maker {
        let by_group = self.mode & 0o020 != 0 && self.group != host.group;
        if self.owner != host.owner {
            Maker::User(self.owner)
        } else if by_group || self.mode & 0o002 != 0 {
            Maker::Others
        } else {
            Maker::Host
        }
    }
}

/// What the record of a runtime says of a cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordMatch {
    /// It is the container's.
    Same,
    /// It would be, for a runtime that runs below another cgroup.
    Below,
    /// The container's is another.
    Other,
}

/// How much a cgroup is worth as the container of its id; the more, the better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// A user or a container may have made it, and the runtime says that the container's is another.
    Refuted,
    /// A user or a container may have made it.
    Claimed,
    /// The host made it, and the runtime says that the container's is another.
    Doubtful,
    /// The host made it.
    Likely,
    /// The runtime says that it is the container's.
    Confirmed,
}

impl Standing {
    /// Of a cgroup that was made so, and of which a runtime says so.
    #[must_use]
    pub fn of(maker: Maker, record_match: Option<RecordMatch>) -> Standing {
        match (maker, record_match) {
            (_, Some(RecordMatch::Same)) => Standing::Confirmed,
            (Maker::Host, Some(RecordMatch::Other)) => Standing::Doubtful,
            (Maker::Host, _) => Standing::Likely,
            (_, Some(RecordMatch::Other)) => Standing::Refuted,
            _ => Standing::Claimed,
        }
    }
}

impl Maker {
    /// Who may make cgroups in the cgroup of this name, which is accessed as `access` says, where the hierarchy
    /// is accessed as `host` says, and `self` may make cgroups beside it.
    #[must_use]
    pub fn within(self, name: &str, access: Access, host: Access, is_container: bool) -> Maker {
        let user = name.strip_prefix("user@").and_then(|rest| rest.strip_suffix(".service")?.parse().ok());
        match user {
            _ if self != Maker::Host => self,
            _ if is_container => Maker::Container,
            Some(user) => Maker::User(user),
            None => access.maker(host),
        }
    }

    /// Whether what a runtime's file tells of an id is told of a cgroup that was made so. `owner` is whose
    /// file that is: what users' own runtimes say holds for those users' cgroups.
    #[must_use]
    pub fn believes(self, record_match: Option<RecordMatch>, owner: u32) -> bool {
        match (self, record_match) {
            (_, Some(RecordMatch::Same)) => true,
            (Maker::Host, None | Some(RecordMatch::Below | RecordMatch::Other)) => true,
            (_, Some(RecordMatch::Other)) => false,
            (Maker::Container, below) => below.is_some(),
            (Maker::Others, _) => false,
            (Maker::User(user), _) => user == owner,
        }
    }
}

/// Holds a cgroup's path against what a runtime noted: a path, or what the systemd driver has in its place,
/// `SLICE:PREFIX:NAME`. `None`: it noted nothing.
#[must_use]
pub fn compare(noted: &str, path: &str) -> Option<RecordMatch> {
    if noted.is_empty() {
        return None;
    }
    let Some((slice, rest)) = noted.split_once(':') else { return Some(whole(noted, path)) };
    // A driver for systemd that runs without one takes all of it as one name.
    if path.rsplit('/').next() == Some(noted) {
        return Some(RecordMatch::Below);
    }
    // A unit has a name.
    let (prefix, name) = rest.split_once(':').filter(|(_, name)| !name.is_empty())?;
    let (above, unit) = path.rsplit_once('/')?;
    let made = unit.strip_suffix(".scope").unwrap_or(unit).strip_prefix(prefix);
    let made = if prefix.is_empty() { made } else { made.and_then(|made| made.strip_prefix('-')) };
    if made != Some(name) {
        return Some(RecordMatch::Other);
    }
    Some(in_slice(if slice.is_empty() { "system.slice" } else { slice }, above))
}

fn whole(noted: &str, path: &str) -> RecordMatch {
    let noted = noted.trim_matches('/');
    match path.strip_suffix(noted) {
        Some("/") => RecordMatch::Same,
        Some(above) if above.ends_with('/') => RecordMatch::Below,
        _ => RecordMatch::Other,
    }
}

/// A slice `a-b.slice` is in `a.slice`: the path that systemd makes of its name.
fn in_slice(slice: &str, path: &str) -> RecordMatch {
    let Some(name) = slice.strip_suffix(".slice") else { return whole(slice, path) };
    let mut above = path;
    // From the innermost slice up; `-` alone is the root.
    let inner = std::iter::once(name.len()).chain(name.rmatch_indices('-').map(|(at, _)| at));
    for end in inner.filter(|_| name != "-") {
        let Some((rest, part)) = above.rsplit_once('/') else { return RecordMatch::Other };
        if part.strip_suffix(".slice") != name.get(..end) {
            return RecordMatch::Other;
        }
        above = rest;
    }
    if above.is_empty() { RecordMatch::Same } else { RecordMatch::Below }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runtimes_recorded_path_is_compared_with_the_cgroups() {
        for (noted, path, want) in [
            ("/docker/ab", "/docker/ab", RecordMatch::Same),
            ("docker/ab", "/docker/ab", RecordMatch::Same),
            ("/docker/ab", "/docker/cd/docker/ab", RecordMatch::Below),
            ("/docker/ab", "/notdocker/ab", RecordMatch::Other),
            ("/docker/ab", "/user.slice/user@1000.service/docker-ab.scope", RecordMatch::Other),
            ("system.slice:docker:ab", "/system.slice/docker-ab.scope", RecordMatch::Same),
            (":docker:ab", "/system.slice/docker-ab.scope", RecordMatch::Same),
            ("system.slice:docker:ab", "/user.slice/u/docker-ab.scope", RecordMatch::Other),
            ("system.slice:docker:ab", "/x/system.slice/docker-ab.scope", RecordMatch::Below),
            ("system.slice:docker:ab", "/system.slice/docker-abc.scope", RecordMatch::Other),
            (
                "kubepods-burstable-podx_y.slice:cri-containerd:ab",
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podx_y.slice/cri-containerd-ab.scope",
                RecordMatch::Same,
            ),
            (
                "kubepods-burstable-podx_y.slice:cri-containerd:ab",
                "/kubepods-burstable-podx_y.slice/cri-containerd-ab.scope",
                RecordMatch::Other,
            ),
            (
                "kubepods-burstable-podx_y.slice:cri-containerd:ab",
                "/system.slice/containerd.service/kubepods-burstable-podx_y.slice:cri-containerd:ab",
                RecordMatch::Below,
            ),
            (
                "user.slice:libpod:ab",
                "/user.slice/user-7.slice/user@7.service/user.slice/libpod-ab.scope",
                RecordMatch::Below,
            ),
            ("-.slice:docker:ab", "/docker-ab.scope", RecordMatch::Same),
        ] {
            assert_eq!(compare(noted, path), Some(want), "{noted} {path}");
        }
        assert_eq!(compare("", "/docker/ab"), None, "nothing was noted");
        assert_eq!(compare("a:b", "/docker/ab"), None, "no such notation");
        for nameless in ["-.slice::", "::", "-.slice:docker:"] {
            assert_eq!(compare(nameless, "/"), None, "{nameless} names no unit");
            assert_eq!(compare(nameless, "/docker-"), None, "{nameless} names no unit");
        }
    }

    #[test]
    fn cgroups_below_a_user_manager_a_delegated_directory_or_a_container_are_not_the_hosts() {
        let host = Access { owner: 0, group: 0, mode: 0o755 };
        let of = |owner| Access { owner, ..host };
        let within = |maker: Maker, name, owner| maker.within(name, of(owner), host, false);
        assert_eq!(within(Maker::Host, "system.slice", 0), Maker::Host);
        assert_eq!(within(Maker::Host, "user@1000.service", 0), Maker::User(1000));
        assert_eq!(within(Maker::Host, "delegated.service", 998), Maker::User(998));
        assert_eq!(within(Maker::User(1000), "app.slice", 0), Maker::User(1000), "and all below it");
        assert_eq!(Maker::Host.within("ab", host, host, true), Maker::Container);
        assert_eq!(Maker::Host.within("user@root.service", host, host, false), Maker::Host);
        for (group, mode, want) in [
            (0, 0o775, Maker::Host),
            (50, 0o755, Maker::Host),
            (50, 0o775, Maker::Others),
            (0, 0o757, Maker::Others),
        ] {
            assert_eq!(Access { group, mode, ..host }.maker(host), want, "{group} {mode:o}");
        }
        assert_eq!(Access { group: 7, mode: 0o775, owner: 7 }.maker(host), Maker::User(7));
        assert!(Standing::of(Maker::User(7), None) < Standing::of(Maker::Host, Some(RecordMatch::Other)));
    }

    #[test]
    fn a_record_of_an_id_is_believed_only_of_the_cgroup_that_its_runtime_made() {
        let (same, below, other) =
            (Some(RecordMatch::Same), Some(RecordMatch::Below), Some(RecordMatch::Other));
        for (maker, record_match, owner, want) in [
            (Maker::Host, None, 0, true),
            (Maker::Host, other, 0, true),
            (Maker::User(1000), None, 0, false),
            (Maker::User(1000), below, 0, false),
            (Maker::User(1000), same, 0, true),
            (Maker::User(1000), below, 1000, true),
            (Maker::User(1000), None, 1000, true),
            (Maker::User(1000), other, 1000, false),
            (Maker::User(1000), below, 1001, false),
            (Maker::Container, below, 0, true),
            (Maker::Container, None, 0, false),
            (Maker::Container, other, 0, false),
            (Maker::Others, same, 0, true),
            (Maker::Others, below, 0, false),
        ] {
            assert_eq!(maker.believes(record_match, owner), want, "{maker:?} {record_match:?} {owner}");
        }
    }
}

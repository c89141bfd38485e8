//! Which cgroup is the container of an id, and what is believed of it.

use super::super::claim::{self, Maker, RecordMatch, Standing};
use super::super::path::{self, PathInfo};
use super::{ContainerEntry, Containers};
use crate::host::Key;
use crate::host::identity::{Identity, NameReport, NameSource};

/// What a container's path tells. Users and containers call their cgroups what they like, so a path tells a
/// pod only `by_host`.
pub(super) fn identity(found: &PathInfo<'_>, by_host: bool) -> Identity {
    let own = Identity { name: found.name, ..Identity::UNKNOWN };
    if by_host { Identity { pod_uid: found.pod, qos: found.qos, ..own } } else { own }
}

impl Containers {
    /// A container's cgroup is seen again, and `maker` may have made it. If that was another before, what was
    /// told since is forgotten and asked for anew, but for what the host's runtime confirmed.
    pub(super) fn made_by(&mut self, key: Key, maker: Maker, found: &PathInfo<'_>) {
        let Some(row) = self.row(key).filter(|row| row.maker != maker) else { return };
        row.maker = maker;
        if row.standing != Standing::Confirmed {
            row.standing = Standing::of(maker, None);
            row.proven = false;
            (row.identity, row.stamp) = (identity(found, maker == Maker::Host), 0);
            self.note_change(key.slot);
        }
    }

    /// Another cgroup has the id of this container. True: it stays the container, and is told of once more, so that
    /// it is looked up what its runtime says. False: the other is worth more, and this one gives way.
    pub fn contest(&mut self, key: Key, other: Maker) -> bool {
        let Some(row) = self.row(key) else { return false };
        let other = Standing::of(other, None);
        // Of two that the host made and the runtime spoke against, the second stays.
        let stays = other <= row.standing || row.successor && row.standing == Standing::Doubtful;
        if stays && !row.contested && row.standing != Standing::Confirmed {
            row.contested = true;
            self.note_change(key.slot);
        }
        stays
    }

    /// The container that gives way first where there is no room for one that the host made: of those that users
    /// or containers made, and that no runtime confirms, the one with the longest path.
    #[must_use]
    pub fn least(&self) -> Option<Key> {
        let claimed = |row: &&ContainerEntry| row.live && row.standing <= Standing::Claimed;
        let rows = self.slots.iter().filter(claimed);
        rows.max_by_key(|row| self.paths.raw(row.key.slot).len()).map(|row| row.key)
    }

    /// Another one gave way to this.
    pub fn succeed(&mut self, key: Key) {
        if let Some(row) = self.row(key) {
            (row.contested, row.successor) = (true, true);
        }
    }

    /// Takes `report` in, as far as it is to be believed of this cgroup. True: its
    /// runtime says that another cgroup is the container, and another cgroup with its id was seen.
    pub fn learn(&mut self, key: Key, report: &NameReport) -> bool {
        let path = self.paths.text(key.slot);
        let row = self.slots.get_mut(usize::from(key.slot)).filter(|row| row.key == key);
        let Some(row) = row else { return false };
        let (believed, stamp) = match &report.by {
            NameSource::Kubelet => (row.maker == Maker::Host || row.proven, row.stamp),
            // A user's files tell nothing of what others made.
            NameSource::Runtime(record) if record.owner != 0 && row.maker != Maker::User(record.owner) => {
                return false;
            }
            NameSource::Runtime(record) => {
                let record_match = record.cgroup.as_deref().and_then(|noted| claim::compare(noted, path));
                // A user's runtime can speak against that user's cgroup, but not make it the host's container.
                let said = record_match.filter(|said| record.owner == 0 || *said == RecordMatch::Other);
                if said.is_some() {
                    row.standing = Standing::of(row.maker, said);
                }
                let made = matches!(said, Some(RecordMatch::Same | RecordMatch::Below));
                if made && row.maker == Maker::Container && !std::mem::replace(&mut row.proven, true) {
                    let found = path::recognise(path);
                    row.identity = found.map_or(row.identity, |found| identity(&found, true));
                }
                (row.maker.believes(record_match, record.owner), record.stamp)
            }
        };
        let refuted = matches!(row.standing, Standing::Refuted | Standing::Doubtful);
        let displaced = row.contested && !row.successor && refuted;
        if believed && !displaced {
            row.identity.learn(&report.identity);
            row.stamp = stamp;
        }
        displaced
    }

    /// Tells its names: what is not known by them stays. A key that is no longer known is left alone.
    pub fn describe(&mut self, key: Key, told: &Identity) {
        if let Some(row) = self.row(key) {
            row.identity.learn(told);
        }
    }
}

//! Which cgroups are containers, as the programs see it.

use std::os::fd::{AsFd, BorrowedFd};

use libbpf_rs::libbpf_sys::bpf_map_create_opts;
use libbpf_rs::{MapCore as _, MapFlags, MapHandle, MapType};

use super::error::{Error, attempt};
use crate::host::Key;

/// The map of the containers that are followed; every program has it.
#[derive(Debug)]
pub struct Followed(MapHandle);

impl Followed {
    /// An empty map with room for so many.
    pub fn create(capacity: usize) -> Result<Followed, Error> {
        let capacity = u32::try_from(capacity.max(1)).unwrap_or(u32::MAX);
        let opts = bpf_map_create_opts {
            sz: size_of::<bpf_map_create_opts>() as libbpf_rs::libbpf_sys::size_t,
            ..Default::default()
        };
        attempt("creating a BPF map", || {
            MapHandle::create(MapType::Hash, Some("containers"), 8, 8, capacity, &opts)
        })
        .map(Followed)
    }

    /// From now on the tasks of this cgroup, and of those below it, are the container's. False:
    /// there is no room.
    pub fn follow(&self, cgroup_id: u64, key: Key) -> bool {
        self.0.update(&cgroup_id.to_ne_bytes(), &key.to_bits().to_ne_bytes(), MapFlags::ANY).is_ok()
    }

    /// From now on they are nobody's.
    pub fn unfollow(&self, cgroup_id: u64) {
        // It may never have found room.
        let _ = self.0.delete(&cgroup_id.to_ne_bytes());
    }
}

impl AsFd for Followed {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

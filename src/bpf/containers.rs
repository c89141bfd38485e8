//! Which cgroups are containers, as the programs see it.

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};

use libbpf_rs::libbpf_sys::{self, bpf_map_create_opts};
use libbpf_rs::{MapHandle, MapType};

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
    /// there is no room. Takes no memory, which libbpf-rs does to tell of an error.
    pub fn follow(&self, cgroup_id: u64, key: Key) -> bool {
        let (fd, value) = (self.0.as_fd().as_raw_fd(), key.to_bits());
        // SAFETY: the map's keys and values are of eight bytes, as both of these are.
        let error = unsafe {
            libbpf_sys::bpf_map_update_elem(
                fd,
                (&raw const cgroup_id).cast(),
                (&raw const value).cast(),
                libbpf_sys::BPF_ANY.into(),
            )
        };
        error == 0
    }

    /// From now on they are nobody's.
    pub fn unfollow(&self, cgroup_id: u64) {
        let fd = self.0.as_fd().as_raw_fd();
        // It may never have found room.
        // SAFETY: the map's keys are of eight bytes, as this one is.
        let _ = unsafe { libbpf_sys::bpf_map_delete_elem(fd, (&raw const cgroup_id).cast()) };
    }
}

impl AsFd for Followed {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

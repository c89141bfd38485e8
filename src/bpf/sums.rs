//! Reading maps that programs add to meanwhile.

use std::os::fd::AsRawFd as _;
use std::{io, ptr};

use libbpf_rs::libbpf_sys::{self, bpf_map_batch_opts};
use libbpf_rs::{MapCore, MapFlags};

/// Takes all that a hash map holds out of it, each entry once, whatever is added meanwhile. A walk from
/// key to key would begin anew whenever the key at hand was deleted. `room` is for more than it can hold.
pub(super) fn take(
    map: &impl MapCore,
    room: u32,
    mut each: impl FnMut(&[u8], &[u8]),
) -> Result<(), libbpf_rs::Error> {
    let size = |bytes: u32| usize::try_from(bytes).unwrap_or(0).max(1);
    let (key_size, value_size) = (size(map.key_size()), size(map.value_size()));
    let entries = usize::try_from(room).unwrap_or(0);
    let (mut keys, mut values) = (vec![0_u8; entries * key_size], vec![0_u8; entries * value_size]);
    // Where the kernel goes on: four bytes of it, and never more than a key.
    let mut place = vec![0_u8; key_size.max(size_of::<u64>())];
    let flags = MapFlags::ANY.bits();
    let options = bpf_map_batch_opts {
        sz: size_of::<bpf_map_batch_opts>() as libbpf_sys::size_t,
        elem_flags: flags,
        flags,
    };
    let mut begun = false;
    loop {
        let from = if begun { place.as_mut_ptr() } else { ptr::null_mut() };
        let mut count = room;
        // SAFETY: `keys` and `values` have room for `count` entries of this map's sizes, `place` for a
        // key; none of them is moved before the call returns.
        let result = unsafe {
            libbpf_sys::bpf_map_lookup_and_delete_batch(
                map.as_fd().as_raw_fd(),
                from.cast(),
                place.as_mut_ptr().cast(),
                keys.as_mut_ptr().cast(),
                values.as_mut_ptr().cast(),
                &raw mut count,
                &raw const options,
            )
        };
        let error = (result != 0).then(|| io::Error::from_raw_os_error(-result));
        let last = match error {
            None => false,
            // The end: what it counted until there is handed over.
            Some(error) if error.kind() == io::ErrorKind::NotFound => true,
            Some(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Some(error) => return Err(error.into()),
        };
        let taken = usize::try_from(count).unwrap_or(0);
        for (key, value) in keys.chunks_exact(key_size).zip(values.chunks_exact(value_size)).take(taken) {
            each(key, value);
        }
        if last {
            return Ok(());
        }
        begun = true;
    }
}

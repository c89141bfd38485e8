//! What the io program must know of this kernel before it is loaded, out of the kernel's own types.

use libbpf_rs::btf::types::{FuncProto, MemberAttr, Struct};
use libbpf_rs::btf::{Btf, BtfType};

use super::error::{Error, attempt};

/// How this kernel has its tracepoints: its release does not tell, for stable kernels change them too.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tracepoints {
    pub(super) bio_after_queue: bool,
    pub(super) rq_after_queue: bool,
    pub(super) folios: bool,
}

/// Where btrfs keeps the number of the subvolume that an inode is of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Btrfs {
    /// The inode in btrfs's own.
    pub(super) inode_at: u32,
    /// The pointer to the subvolume's root in that.
    pub(super) root_at: u32,
    /// The number in the root.
    pub(super) number_at: u32,
}

impl Btrfs {
    /// `None` where btrfs is a module, or is not there: its inodes are told apart by their addresses then.
    fn of(btf: &Btf<'_>) -> Option<Btrfs> {
        let key = member(btf, "btrfs_root", "root_key")?;
        Some(Btrfs {
            inode_at: member(btf, "btrfs_inode", "vfs_inode")?,
            root_at: member(btf, "btrfs_inode", "root")?,
            number_at: key + member(btf, "btrfs_key", "objectid")?,
        })
    }
}

/// Where a member of a structure is, in bytes.
fn member(btf: &Btf<'_>, structure: &str, name: &str) -> Option<u32> {
    let structure = btf.type_by_name::<Struct<'_>>(structure)?;
    let found = structure.iter().find(|member| member.name.is_some_and(|own| own == name))?;
    match found.attr {
        MemberAttr::Normal { offset } => Some(offset / 8),
        MemberAttr::BitField { .. } => None,
    }
}

/// What the kernel's types tell.
pub(super) fn of_kernel() -> Result<(Tracepoints, Option<Btrfs>), Error> {
    attempt("the kernel's types", || {
        let btf = Btf::from_vmlinux()?;
        let tracepoints = Tracepoints {
            bio_after_queue: parameters(&btf, "btf_trace_block_bio_queue") == Some(2),
            rq_after_queue: parameters(&btf, "btf_trace_block_rq_issue") == Some(2),
            folios: parameters(&btf, "btf_trace_writeback_dirty_folio").is_some(),
        };
        Ok((tracepoints, Btrfs::of(&btf)))
    })
}

/// How many a tracepoint hands over; `None` where this kernel has no such tracepoint.
fn parameters(btf: &Btf<'_>, tracepoint: &str) -> Option<usize> {
    let pointer = btf.type_by_name::<BtfType<'_>>(tracepoint)?.skip_mods_and_typedefs();
    let function = FuncProto::try_from(pointer.next_type()?).ok()?;
    // The first is for whoever registers.
    function.iter().count().checked_sub(1)
}

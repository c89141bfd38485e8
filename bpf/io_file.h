/* SPDX-License-Identifier: GPL-2.0 */
/*
 * From a bio to its file: by the page that it moves, or by the request that it came with, to the
 * inode; from there to who made it dirty, and to its path, which is told once for each name.
 */
#ifndef ONSET_IO_FILE_H
#define ONSET_IO_FILE_H

#include "io_walk.h"

#define DEPTH_MAX     512 /* components of seven letters */
#define MAPPING_ODD   3	  /* include/linux/page-flags.h: anonymous or movable memory */
#define TELL_AGAIN_NS 1000000
#define MIX_BY	      0x9e3779b97f4a7c15ULL /* 2^64 by the golden ratio */

/* Any name of an inode, if one is in memory. */
static __always_inline struct dentry *dentry_of(struct inode *inode)
{
	struct hlist_node *alias = BPF_CORE_READ(inode, i_dentry.first);
	struct dentry___flat *flat = NULL;
	struct dentry *dentry = NULL;

	if (!alias)
		return NULL;
	if (bpf_core_field_exists(dentry->d_u.d_alias))
		return (void *)alias - bpf_core_field_offset(dentry->d_u.d_alias);
	if (bpf_core_field_exists(flat->d_alias))
		return (void *)alias - bpf_core_field_offset(flat->d_alias);
	return NULL;
}

/*
 * One more name of a path, into `scratch`. It has no state of its caller's, so the verifier goes through it
 * once, and not for each depth. 0: it was the last.
 */
__noinline int read_name(void)
{
	struct dentry *dentry, *parent;
	struct path_walk *path;
	const unsigned char *name;
	__u32 bytes, zero = 0;
	long length;

	path = bpf_map_lookup_elem(&scratch, &zero);
	if (!path)
		return 0;
	dentry = path->next;
	parent = BPF_CORE_READ(dentry, d_parent);
	name = BPF_CORE_READ(dentry, d_name.name);
	path->record.whole = parent == dentry;
	/* Read here: older verifiers forget the bound of what is kept over a call. */
	bytes = path->record.bytes;
	if (!parent || parent == dentry || bytes >= NAMES_MAX)
		return 0;
	length = bpf_probe_read_kernel_str(path->record.names + bytes, NAME_ROOM, name);
	if (length <= 0)
		return 0;
	path->record.bytes = bytes + length;
	path->next = parent;
	return 1;
}

/* The names from the next dentry up. Apart for the same reason. */
__noinline int read_names(void)
{
#pragma clang loop unroll(disable)
	for (int depth = 0; depth < DEPTH_MAX; depth++)
		if (!read_name())
			break;
	return 0;
}

/* A number for the name of a dentry: it is another one when the file is renamed or deleted. */
static __always_inline __u64 name_of(struct dentry *dentry, bool deleted)
{
	__u64 name = (__u64)dentry * MIX_BY + (__u64)BPF_CORE_READ(dentry, d_parent);

	return name * MIX_BY + BPF_CORE_READ(dentry, d_name.hash) * 2ULL + deleted;
}

/*
 * Tells the path of a file that is new, or has another name than was told; of two links to a file that are
 * used at a time, no more often than the ring has room for.
 */
static __always_inline void tell_path(struct file_id *file, struct dentry *dentry, __u64 run)
{
	struct told *before = bpf_map_lookup_elem(&told, file);
	struct told now = {.run = run, .at_ns = bpf_ktime_get_ns()};
	struct path_walk *path;
	__u32 zero = 0;
	bool deleted;
	__u64 size;

	if (!dentry)
		return;
	/* A filesystem's root is never hashed. */
	deleted = !BPF_CORE_READ(dentry, d_hash.pprev) && BPF_CORE_READ(dentry, d_parent) != dentry;
	now.name = name_of(dentry, deleted);
	if (before && before->run == run &&
	    (before->name == now.name || now.at_ns - before->at_ns < TELL_AGAIN_NS))
		return;
	path = bpf_map_lookup_elem(&scratch, &zero);
	if (!path)
		return;
	path->record.kind = RECORD_PATH;
	path->record.file = *file;
	path->record.deleted = deleted;
	path->record.whole = 0;
	path->record.bytes = 0;
	path->next = dentry;
	read_names();
	size = __builtin_offsetof(struct path_record, names) + path->record.bytes;
	if (size > sizeof(path->record) ||
	    bpf_ringbuf_output(&records, &path->record, size, BPF_RB_NO_WAKEUP))
		return count_lost();
	/* Should this fail, it is told again. */
	bpf_map_update_elem(&told, file, &now, BPF_ANY);
}

/* The inode that the memory of a bio belongs to. */
static __always_inline struct inode *cached_inode(struct bio *bio)
{
	struct bio_vec *vector = BPF_CORE_READ(bio, bi_io_vec);
	__u32 index = BPF_CORE_READ(bio, bi_iter.bi_idx);
	struct page *page = NULL;
	struct address_space *mapping;
	struct folio *folio;

	bpf_probe_read_kernel(&page, sizeof(page), &vector[index].bv_page);
	page = first_page(page);
	folio = (void *)page;
	if (bpf_core_field_exists(folio->mapping))
		mapping = BPF_CORE_READ(folio, mapping);
	else
		mapping = BPF_CORE_READ(page, mapping);
	if (!mapping || ((__u64)mapping & MAPPING_ODD))
		return NULL;
	return BPF_CORE_READ(mapping, host);
}

/* Through an overlay, a file is opened by a name of the overlay's: it is not in the inode's own filesystem.
 */
static __always_inline struct dentry *own_name(struct dentry *opened, struct super_block *superblock)
{
	return BPF_CORE_READ(opened, d_sb) == superblock ? opened : NULL;
}

static __always_inline void find_file(struct bio *bio, struct flight *flight)
{
	struct control *now = steering();
	struct super_block *superblock;
	struct dentry *dentry = NULL;
	struct file_id file = {};
	struct inode *inode;
	__u64 magic;

	if (!now)
		return;
	if (now->direct_end && (__u64)BPF_CORE_READ(bio, bi_end_io) == now->direct_end) {
		struct iomap_dio *dio = BPF_CORE_READ(bio, bi_private);
		struct file *opened = BPF_CORE_READ(dio, iocb, ki_filp);

		flight->key.direct = 1;
		inode = BPF_CORE_READ(opened, f_inode);
		dentry = BPF_CORE_READ(opened, f_path.dentry);
	} else {
		inode = cached_inode(bio);
	}
	if (!inode)
		return;
	superblock = BPF_CORE_READ(inode, i_sb);
	magic = BPF_CORE_READ(superblock, s_magic);
	if (magic == BDEVFS_MAGIC) {
		flight->key.target = TARGET_DISK;
		flight->key.file.filesystem = BPF_CORE_READ(inode, i_rdev);
		return;
	}
	identify(inode, superblock, magic, &file);
	flight->key.target = TARGET_FILE;
	flight->key.file = file;
	if (!flight->key.direct && flight->write)
		find_writers(bio, flight, &file, now->run);
	if (dentry)
		dentry = own_name(dentry, superblock);
	tell_path(&file, dentry ? dentry : dentry_of(inode), now->run);
}

#endif

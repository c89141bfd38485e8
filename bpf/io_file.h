/* SPDX-License-Identifier: GPL-2.0 */
/*
 * From a bio to its file: by the page that it moves, or by the request that it came with, to the
 * inode; from there to who made it dirty, and to its path, which is told once.
 */
#ifndef ONSET_IO_FILE_H
#define ONSET_IO_FILE_H

#include "io.h"

#define DEPTH_MAX   512 /* components of seven letters */
#define MAPPING_ODD 3	/* include/linux/page-flags.h: anonymous or movable memory */

/* No page's place is that high, and the bits of no page's place that tell its first are fewer. */
#define LEAST_MASK (~0ULL << 30)

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
 * The names from a dentry up, into `scratch`. It has no state of its caller's, so the verifier goes
 * through its many turns once.
 */
__noinline int read_names(__u64 address)
{
	struct dentry *dentry = (void *)address;
	struct path_record *path;
	__u32 bytes = 0, zero = 0;

	path = bpf_map_lookup_elem(&scratch, &zero);
	if (!path)
		return 0;
	path->whole = 0;
#pragma clang loop unroll(disable)
	for (int depth = 0; depth < DEPTH_MAX; depth++) {
		struct dentry *parent = BPF_CORE_READ(dentry, d_parent);
		long length;

		path->whole = parent == dentry;
		if (!parent || parent == dentry || bytes >= NAMES_MAX)
			break;
		length = bpf_probe_read_kernel_str(path->names + bytes, NAME_ROOM,
						   BPF_CORE_READ(dentry, d_name.name));
		if (length <= 0)
			break;
		bytes += length;
		dentry = parent;
	}
	path->bytes = bytes;
	return 0;
}

/* Tells the path of a file that is new. */
static __always_inline void tell_path(struct file_id *file, struct dentry *dentry)
{
	struct path_record *path;
	__u32 zero = 0;
	__u64 size;
	__u8 yes = 1;

	if (!dentry || bpf_map_lookup_elem(&told, file))
		return;
	path = bpf_map_lookup_elem(&scratch, &zero);
	if (!path)
		return;
	path->kind = RECORD_PATH;
	path->filesystem = file->filesystem;
	path->inode = file->inode;
	read_names((__u64)dentry);
	size = __builtin_offsetof(struct path_record, names) + path->bytes;
	if (size > sizeof(*path) || bpf_ringbuf_output(&records, path, size, BPF_RB_NO_WAKEUP))
		return count_lost();
	/* Should this fail, it is told again. */
	bpf_map_update_elem(&told, file, &yes, BPF_ANY);
}

/* The first page of those that are one. A later one tells where it is, or what bits of its own place tell. */
static __always_inline struct page *first_page(struct page *page)
{
	struct page___info *newer = (void *)page;
	__u64 told = 0;

	if (bpf_core_field_exists(page->compound_head))
		told = BPF_CORE_READ(page, compound_head);
	else if (bpf_core_field_exists(newer->compound_info))
		told = BPF_CORE_READ(newer, compound_info);
	if (!(told & 1))
		return page;
	return (void *)(told >= LEAST_MASK ? (__u64)page & told : told - 1);
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

/* Writes of cached pages are those of who made them dirty. */
static __always_inline void find_dirtier(struct flight *flight, struct file_id *file)
{
	struct owner *owner = bpf_map_lookup_elem(&dirtiers, file);

	flight->key.earlier = !owner;
	if (!owner)
		return;
	flight->key.tgid = owner->tgid;
	flight->key.container = owner->container;
	__builtin_memcpy(flight->comm, owner->comm, sizeof(flight->comm));
}

static __always_inline void find_file(struct bio *bio, struct flight *flight)
{
	struct control *now = steering();
	struct dentry *dentry = NULL;
	struct file_id file = {};
	struct inode *inode;

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
	if (BPF_CORE_READ(inode, i_sb, s_magic) == BDEVFS_MAGIC) {
		flight->key.target = TARGET_DISK;
		flight->key.filesystem = BPF_CORE_READ(inode, i_rdev);
		return;
	}
	flight->key.target = TARGET_FILE;
	flight->key.inode = file.inode = BPF_CORE_READ(inode, i_ino);
	flight->key.filesystem = file.filesystem = BPF_CORE_READ(inode, i_sb, s_dev);
	file.run = now->run;
	if (!flight->key.direct && flight->write)
		find_dirtier(flight, &file);
	tell_path(&file, dentry ? dentry : dentry_of(inode));
}

#endif

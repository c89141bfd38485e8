/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The I/O capture's common ground: what it counts by, what it tells, and its maps. Nothing here
 * looks into a bio or a page.
 */
#ifndef ONSET_IO_H
#define ONSET_IO_H

#include "lost.h"
#include "task.h"

#define SLOTS_MAX  8
#define FRAMES_MAX 64
#define NAME_ROOM  256	/* a component of a path with its end */
#define NAMES_MAX  4096 /* PATH_MAX */
#define SLOTS_MASK ((1 << SLOTS_MAX) - 1)

/* include/uapi/linux/magic.h */
#define BDEVFS_MAGIC	  0x62646576
#define BTRFS_SUPER_MAGIC 0x9123683e
#define EXT4_SUPER_MAGIC  0xef53
#define XFS_SUPER_MAGIC	  0x58465342

enum target {
	TARGET_UNKNOWN, /* memory that belongs to no file: swap, a filesystem's own buffers */
	TARGET_FILE,
	TARGET_DISK, /* the cache of the block device itself: a filesystem's metadata and journal */
};

/*
 * A file for as long as it lives. Its number alone is not enough: ext4 gives it to the next file at
 * once, and each subvolume of btrfs has its own.
 */
struct file_id {
	__u64 superblock; /* its address and its UUID: either may be had again, by another filesystem */
	__u64 inode;
	__u64 tree; /* btrfs: the subvolume */
	__u32 filesystem;
	__u32 generation;
};

/* Whose I/O to what. */
struct row_key {
	__u64 container;
	struct file_id file;
	__u32 tgid;
	__u32 disk;
	__u8 target;
	__u8 direct;
	__u8 earlier; /* written pages were dirty before anyone watched */
	__u8 slot;
	__u8 shared; /* several processes made the file dirty: whose pages these are is not known */
	__u8 pad[3];
};

struct row {
	__u64 fs_written;
	__u64 read;
	__u64 written;
	__u64 bios;
	__u64 q2c_ns;
	__u64 q2c_max_ns;
	__u64 issued;
	__u64 d2c_ns;
	__u64 d2c_max_ns;
	char comm[16];
};

/* A bio on its way. */
struct flight {
	struct row_key key;
	__u64 queued_ns;
	__u64 issued_ns;
	__u32 bytes;
	__u16 write;
	__u16 split; /* the bytes are several processes': `splits` has them */
	char comm[16];
	__u64 vector; /* what it is found by in `vectors`, if it is there */
};

struct owner {
	__u64 container;
	__u64 started; /* when its process did: another one may have its id later */
	__u32 tgid;
	char comm[16];
	__u32 pad;
};

enum record_kind {
	RECORD_PATH = 1,
	RECORD_STALL = 2,
};

/* A file's names from its own up to the filesystem's root, each ended by a zero. */
struct path_record {
	__u32 kind;
	__u32 whole;
	struct file_id file;
	__u32 bytes;
	__u32 deleted;
	char names[NAMES_MAX + NAME_ROOM];
};

/* A path in the making, and whose name is read next. */
struct path_walk {
	struct path_record record;
	struct dentry *next;
};

struct stall_record {
	__u32 kind;
	__u32 tgid;
	__u32 pid;
	__u32 cpu;
	__u64 container;
	__u64 blocked_ns;
	__u32 in_iowait;
	__u32 stack_bytes;
	char comm[16];
	__u64 stack[FRAMES_MAX];
};

struct control {
	__u64 stall_ns;
	__u64 run;
	/* Where iomap_dio_bio_end_io is: who ends a bio so has a struct iomap_dio. 0: not known. */
	__u64 direct_end;
	/* Which filesystems tell of each write: they are attached. */
	__u32 ext4_tells;
	__u32 xfs_tells;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct control);
} control SEC(".maps");

/* Disks that are watched: which captures want them, and how they lie. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, __u32);
} disks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, struct row_key);
	__type(value, struct row);
} rows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, struct flight);
} flights SEC(".maps");

/* Of bios on a disk that others lie under, by their vector: their clones there share it. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, struct flight);
} vectors SEC(".maps");

/* What was told of a file's path. */
struct told {
	__u64 run;  /* what an earlier one told is told again */
	__u64 name; /* its dentry as it was then, mixed */
	__u64 at_ns;
};

/* Files whose paths were told. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct file_id);
	__type(value, struct told);
} told SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct path_walk);
} scratch SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} records SEC(".maps");
RECORD_OF(records, path_record);
RECORD_OF(records, stall_record);

/*
 * Where btrfs keeps what subvolume an inode is of: the inode in its own, the root in that, the number in the
 * root. It may be a module that comes later; while it is not known, the first is 0.
 */
const volatile __u32 btrfs_inode_at = 0;
const volatile __u32 btrfs_root_at = 0;
const volatile __u32 btrfs_number_at = 0;

/* An address as a number: one whose type the verifier knows may not be handed to a function, or masked. */
static __always_inline __u64 plain(__u64 address)
{
	__u64 number = 0;

	bpf_probe_read_kernel(&number, sizeof(number), &address);
	return number;
}

static __always_inline __u32 number_of(struct gendisk *disk)
{
	return (__u32)BPF_CORE_READ(disk, major) << 20 | (__u32)BPF_CORE_READ(disk, first_minor);
}

static __always_inline __u32 disk_of(struct bio *bio)
{
	struct bio___old *old = (void *)bio;

	if (bpf_core_field_exists(bio->bi_bdev))
		return number_of(BPF_CORE_READ(bio, bi_bdev, bd_disk));
	return number_of(BPF_CORE_READ(old, bi_disk));
}

/* Whether this process is the owner. */
static __always_inline bool is_own(struct owner *owner)
{
	struct task_struct *task = (void *)bpf_get_current_task();

	return owner->tgid == bpf_get_current_pid_tgid() >> 32 &&
	       owner->started == BPF_CORE_READ(task, group_leader, start_time);
}

/* Apart, so that the verifier need not look at what follows for each level of cgroups. */
__noinline __u64 own_container(void)
{
	return container_of_task((void *)bpf_get_current_task());
}

static __always_inline void own(struct owner *owner)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct task_struct *leader = BPF_CORE_READ(task, group_leader);

	owner->container = own_container();
	owner->started = BPF_CORE_READ(leader, start_time);
	owner->tgid = bpf_get_current_pid_tgid() >> 32;
	BPF_CORE_READ_INTO(&owner->comm, leader, comm);
}

/* Where it cannot be told otherwise which of two inodes it is: it has its place as long as it lives. */
static __always_inline __u64 tree_of(struct inode *inode, __u64 magic, __u32 generation)
{
	void *root = NULL;
	__u64 number = 0;

	if (magic != BTRFS_SUPER_MAGIC)
		return generation ? 0 : (__u64)inode;
	if (!btrfs_inode_at)
		return (__u64)inode;
	bpf_probe_read_kernel(&root, sizeof(root), (void *)inode - btrfs_inode_at + btrfs_root_at);
	bpf_probe_read_kernel(&number, sizeof(number), root + btrfs_number_at);
	return number;
}

static __always_inline void identify(struct inode *inode, struct super_block *superblock, __u64 magic,
				     struct file_id *file)
{
	__u64 uuid = 0;

	if (bpf_core_field_exists(superblock->s_uuid))
		bpf_probe_read_kernel(&uuid, sizeof(uuid),
				      __builtin_preserve_access_index(&superblock->s_uuid));
	file->superblock = (__u64)superblock ^ uuid;
	file->inode = BPF_CORE_READ(inode, i_ino);
	file->filesystem = BPF_CORE_READ(superblock, s_dev);
	file->generation = BPF_CORE_READ(inode, i_generation);
	file->tree = tree_of(inode, magic, file->generation);
}

static __always_inline struct control *steering(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&control, &zero);
}

#endif

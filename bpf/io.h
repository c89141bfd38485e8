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
#define BDEVFS_MAGIC 0x62646576

enum target {
	TARGET_UNKNOWN, /* memory that belongs to no file: swap, a filesystem's own buffers */
	TARGET_FILE,
	TARGET_DISK, /* the cache of the block device itself: a filesystem's metadata and journal */
};

/* Whose I/O to what. */
struct row_key {
	__u64 container;
	__u64 inode;
	__u32 tgid;
	__u32 disk;
	__u32 filesystem;
	__u8 target;
	__u8 direct;
	__u8 earlier; /* written pages were dirty before anyone watched */
	__u8 slot;
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
	__u32 write;
	char comm[16];
	__u64 vector; /* what it is found by in `vectors`, if it is there */
};

struct owner {
	__u64 container;
	__u32 tgid;
	char comm[16];
	__u32 pad;
};

struct file_id {
	__u64 inode;
	__u32 filesystem;
	__u32 run; /* what was told in an earlier run is told again */
};

enum record_kind {
	RECORD_PATH = 1,
	RECORD_STALL = 2,
};

/* A file's names from its own up to the filesystem's root, each ended by a zero. */
struct path_record {
	__u32 kind;
	__u32 filesystem;
	__u64 inode;
	__u32 whole;
	__u32 bytes;
	char names[NAMES_MAX + NAME_ROOM];
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
_Static_assert(__builtin_offsetof(struct stall_record, stack) == 56, "src/bpf/io.rs reads it byte by byte");

struct control {
	__u64 stall_ns;
	__u64 run;
	/* Where iomap_dio_bio_end_io is: who ends a bio so has a struct iomap_dio. 0: not known. */
	__u64 direct_end;
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
	__uint(max_entries, 4096);
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

/* Who made pages of a file dirty last. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct file_id);
	__type(value, struct owner);
} dirtiers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct file_id);
	__type(value, __u8);
} told SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct path_record);
} scratch SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} records SEC(".maps");

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

static __always_inline void own(struct owner *owner)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct task_struct *leader = BPF_CORE_READ(task, group_leader);

	owner->container = container_of_task(task);
	owner->tgid = bpf_get_current_pid_tgid() >> 32;
	BPF_CORE_READ_INTO(&owner->comm, leader, comm);
}

static __always_inline struct control *steering(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&control, &zero);
}

#endif

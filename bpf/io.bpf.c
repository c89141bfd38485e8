// SPDX-License-Identifier: GPL-2.0
/*
 * Who reads and writes what on some disks: bios are followed from the queue to their completion
 * and counted by disk, process, container and file. Tasks that sat in D state for long are told
 * with their stacks. Pages belong to a file, and dirty ones to who made them dirty.
 */
#include "task.h"
#include <bpf/bpf_tracing.h>

#define SLOTS_MAX   8
#define BIOS_MAX    256 /* in a request: more segments has no queue */
#define FRAMES_MAX  64
#define NAME_ROOM   256	 /* a component of a path with its end */
#define NAMES_MAX   4096 /* PATH_MAX */
#define DEPTH_MAX   512	 /* components of seven letters */
#define SLOTS_MASK  ((1 << SLOTS_MAX) - 1)
#define DISK_BELOW  (1 << SLOTS_MAX)	   /* it gets clones of another one's bios */
#define DISK_ABOVE  (1 << (SLOTS_MAX + 1)) /* it makes clones of bios for another one */
#define MAPPING_ODD 3			   /* include/linux/page-flags.h: anonymous or movable memory */

/* No page's place is that high, and the bits of no page's place that tell its first are fewer. */
#define LEAST_MASK (~0ULL << 30)

/* include/linux/blk_types.h */
#define REQ_OP_MASK    0xff
#define REQ_OP_DISCARD 3
#define REQ_OP_ZONES   10 /* from here on operations move no data */

/* include/linux/sched.h */
#define TASK_UNINTERRUPTIBLE 0x2
#define TASK_NOLOAD	     0x400
#define PF_KTHREAD	     0x200000

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

/* Bios, paths and stalls that found no room. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} lost SEC(".maps");

/* Whether these tracepoints have the queue as their first argument: before 5.11 some do. */
const volatile bool bio_after_queue = false;
const volatile bool rq_after_queue = false;

static __always_inline void count_lost(void)
{
	__u32 zero = 0;
	__u64 *count = bpf_map_lookup_elem(&lost, &zero);

	if (count)
		__sync_fetch_and_add(count, 1);
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

/* Whether diskstats counts it as bytes read or written. */
static __always_inline bool moves_data(__u32 op)
{
	return op != REQ_OP_DISCARD && op < REQ_OP_ZONES;
}

static __always_inline void own(struct owner *owner)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct task_struct *leader = BPF_CORE_READ(task, group_leader);

	owner->container = container_of_task(task);
	owner->tgid = bpf_get_current_pid_tgid() >> 32;
	BPF_CORE_READ_INTO(&owner->comm, leader, comm);
}

static __always_inline bool by_kernel(void)
{
	struct task_struct *task = (void *)bpf_get_current_task();

	return BPF_CORE_READ(task, flags) & PF_KTHREAD;
}

static __always_inline struct control *steering(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&control, &zero);
}

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

/* The attribution of the bio above that this one is a clone of. */
static __always_inline bool inherit(__u64 vector, struct flight *flight)
{
	struct flight *above = bpf_map_lookup_elem(&vectors, &vector);
	__u32 disk = flight->key.disk;

	if (!above)
		return false;
	flight->key = above->key;
	flight->key.disk = disk;
	__builtin_memcpy(flight->comm, above->comm, sizeof(flight->comm));
	return true;
}

static __always_inline int queue_bio(struct bio *bio)
{
	__u32 disk = disk_of(bio), op = BPF_CORE_READ(bio, bi_opf) & REQ_OP_MASK;
	__u32 *how = bpf_map_lookup_elem(&disks, &disk);
	__u64 place = (__u64)bio, vector;
	struct flight flight = {};
	struct owner owner = {};

	flight.bytes = BPF_CORE_READ(bio, bi_iter.bi_size);
	if (!how || !flight.bytes || !moves_data(op))
		return 0;
	flight.write = op & 1;
	flight.key.disk = disk;
	vector = (__u64)BPF_CORE_READ(bio, bi_io_vec);
	flight.vector = *how & DISK_ABOVE ? vector : 0;
	if (!(*how & DISK_BELOW) || !inherit(vector, &flight)) {
		own(&owner);
		flight.key.tgid = owner.tgid;
		flight.key.container = owner.container;
		__builtin_memcpy(flight.comm, owner.comm, sizeof(flight.comm));
		/* Of those that only wipe, the vector is not theirs. */
		if (op <= 1)
			find_file(bio, &flight);
	}
	flight.queued_ns = bpf_ktime_get_ns();
	if (flight.vector)
		bpf_map_update_elem(&vectors, &vector, &flight, BPF_ANY);
	if (bpf_map_update_elem(&flights, &place, &flight, BPF_ANY))
		count_lost();
	return 0;
}

static __always_inline int issue_request(struct request *request)
{
	__u64 now = bpf_ktime_get_ns();
	struct bio *bio = request->bio;

#pragma clang loop unroll(disable)
	for (int count = 0; count < BIOS_MAX && bio; count++) {
		__u64 place = (__u64)bio;
		struct flight *flight = bpf_map_lookup_elem(&flights, &place);

		/* The last time counts: a device that was busy has it issued again. */
		if (flight)
			flight->issued_ns = now;
		bio = bio->bi_next;
	}
	return 0;
}

static __always_inline struct row *row_of(struct row_key *key, const char *comm)
{
	struct row *row = bpf_map_lookup_elem(&rows, key);
	struct row new = {};

	if (row)
		return row;
	__builtin_memcpy(new.comm, comm, sizeof(new.comm));
	bpf_map_update_elem(&rows, key, &new, BPF_NOEXIST);
	row = bpf_map_lookup_elem(&rows, key);
	if (!row)
		count_lost();
	return row;
}

static __always_inline void add_time(__u64 took, __u64 *sum, __u64 *max)
{
	__sync_fetch_and_add(sum, took);
	/* Two at once may leave the lesser: they are of a kind. */
	if (took > *max)
		*max = took;
}

static __always_inline void add_flight(struct row *row, struct flight *flight, __u64 now)
{
	__sync_fetch_and_add(flight->write ? &row->written : &row->read, flight->bytes);
	__sync_fetch_and_add(&row->bios, 1);
	add_time(now - flight->queued_ns, &row->q2c_ns, &row->q2c_max_ns);
	if (flight->issued_ns) {
		__sync_fetch_and_add(&row->issued, 1);
		add_time(now - flight->issued_ns, &row->d2c_ns, &row->d2c_max_ns);
	}
}

/* A bio came to its end. */
static __always_inline int end_flight(__u64 place)
{
	struct flight *found = bpf_map_lookup_elem(&flights, &place);
	__u64 now = bpf_ktime_get_ns();
	struct flight flight;
	__u32 *how;

	if (!found)
		return 0;
	flight = *found;
	bpf_map_delete_elem(&flights, &place);
	/* The next to have this memory is another one's. */
	if (flight.vector)
		bpf_map_delete_elem(&vectors, &flight.vector);
	how = bpf_map_lookup_elem(&disks, &flight.key.disk);
	if (!how)
		return 0;
#pragma clang loop unroll(disable)
	for (int slot = 0; slot < SLOTS_MAX; slot++) {
		struct row *row;

		if (!(*how & (1 << slot)))
			continue;
		flight.key.slot = slot;
		row = row_of(&flight.key, flight.comm);
		if (row)
			add_flight(row, &flight, now);
	}
	return 0;
}

/* Apart, so that the verifier need not follow it for each bio of a request. */
__noinline int finish(__u64 place)
{
	return end_flight(place);
}

/* All bios of a request that these bytes complete. */
static __always_inline int complete_request(struct request *request, __u32 bytes)
{
	struct bio *bio = BPF_CORE_READ(request, bio);

#pragma clang loop unroll(disable)
	for (int count = 0; count < BIOS_MAX && bio; count++) {
		__u32 size = BPF_CORE_READ(bio, bi_iter.bi_size);

		if (size > bytes)
			break;
		bytes -= size;
		finish((__u64)bio);
		bio = BPF_CORE_READ(bio, bi_next);
	}
	return 0;
}

/* Which captures want the disk that an inode is on. A filesystem may be on more than one. */
static __always_inline __u32 wanted(struct inode *inode, __u32 *disk)
{
	struct block_device *device = BPF_CORE_READ(inode, i_sb, s_bdev);
	__u32 *how;

	if (!device)
		return SLOTS_MASK;
	*disk = number_of(BPF_CORE_READ(device, bd_disk));
	how = bpf_map_lookup_elem(&disks, disk);
	return how ? *how & SLOTS_MASK : 0;
}

static __always_inline int dirty(struct inode *inode)
{
	struct owner owner = {}, *before;
	struct control *now = steering();
	struct file_id file = {};
	__u32 disk = 0;

	if (!now || !inode || !wanted(inode, &disk) || BPF_CORE_READ(inode, i_sb, s_magic) == BDEVFS_MAGIC)
		return 0;
	file.inode = BPF_CORE_READ(inode, i_ino);
	file.filesystem = BPF_CORE_READ(inode, i_sb, s_dev);
	file.run = now->run;
	before = bpf_map_lookup_elem(&dirtiers, &file);
	/* A kernel thread that cleans up after a process is not who wrote. */
	if (before && (before->tgid == bpf_get_current_pid_tgid() >> 32 || by_kernel()))
		return 0;
	own(&owner);
	bpf_map_update_elem(&dirtiers, &file, &owner, BPF_ANY);
	return 0;
}

/* Bytes that a filesystem took from a process into its cache. */
static __always_inline int take(struct inode *inode, __u64 bytes)
{
	struct row_key key = {.target = TARGET_FILE};
	struct owner owner = {};
	__u32 slots = wanted(inode, &key.disk);

	if (!slots || !key.disk || !bytes)
		return 0;
	own(&owner);
	key.container = owner.container;
	key.tgid = owner.tgid;
	key.inode = BPF_CORE_READ(inode, i_ino);
	key.filesystem = BPF_CORE_READ(inode, i_sb, s_dev);
#pragma clang loop unroll(disable)
	for (int slot = 0; slot < SLOTS_MAX; slot++) {
		struct row *row;

		if (!(slots & (1 << slot)))
			continue;
		key.slot = slot;
		row = row_of(&key, owner.comm);
		if (row)
			__sync_fetch_and_add(&row->fs_written, bytes);
	}
	return 0;
}

static __always_inline int wake(struct task_struct *task)
{
	__u32 state = state_of(task);
	struct stall_record *stall;
	struct control *now;
	__u64 slept;
	long bytes;

	if (!(state & TASK_UNINTERRUPTIBLE) || (state & TASK_NOLOAD))
		return 0;
	now = steering();
	slept = off_cpu_for(task);
	if (!now || slept < now->stall_ns)
		return 0;
	stall = bpf_ringbuf_reserve(&records, sizeof(*stall), 0);
	if (!stall) {
		count_lost();
		return 0;
	}
	stall->kind = RECORD_STALL;
	stall->tgid = task->tgid;
	stall->pid = task->pid;
	stall->cpu = bpf_core_field_exists(task->se.cfs_rq->rq->cpu) ? task->se.cfs_rq->rq->cpu : 0;
	stall->container = container_of_task(task);
	stall->blocked_ns = slept;
	stall->in_iowait = BPF_CORE_READ_BITFIELD(task, in_iowait);
	bpf_probe_read_kernel(stall->comm, sizeof(stall->comm), task->comm);
	bytes = bpf_get_task_stack(task, stall->stack, sizeof(stall->stack), 0);
	stall->stack_bytes = bytes > 0 ? bytes : 0;
	bpf_ringbuf_submit(stall, BPF_RB_NO_WAKEUP);
	return 0;
}

/* What follows the queue. A load of its own: 5.10's verifier takes no place that is worked out. */
static __always_inline void *after_queue(__u64 *ctx)
{
	void *second;

	asm volatile("%0 = *(u64 *)(%1 + 8)" : "=r"(second) : "r"(ctx));
	return second;
}

SEC("tp_btf/block_bio_queue")
int bio_queued(__u64 *ctx)
{
	return queue_bio(bio_after_queue ? after_queue(ctx) : (void *)ctx[0]);
}

SEC("tp_btf/block_rq_issue")
int rq_issued(__u64 *ctx)
{
	return issue_request(rq_after_queue ? after_queue(ctx) : (void *)ctx[0]);
}

SEC("tp_btf/block_rq_complete")
int BPF_PROG(rq_completed, struct request *request, int error, unsigned int bytes)
{
	return complete_request(request, bytes);
}

/* Of devices without requests, such as dm's and md's; for the others it is not traced. */
SEC("tp_btf/block_bio_complete")
int BPF_PROG(bio_completed, struct request_queue *queue, struct bio *bio)
{
	return end_flight((__u64)bio);
}

SEC("tp_btf/writeback_dirty_folio")
int BPF_PROG(folio_dirtied, struct folio *folio, struct address_space *mapping)
{
	return mapping ? dirty(BPF_CORE_READ(mapping, host)) : 0;
}

/* Before 5.16. */
SEC("tp_btf/writeback_dirty_page")
int BPF_PROG(page_dirtied, struct page *page, struct address_space *mapping)
{
	return mapping ? dirty(BPF_CORE_READ(mapping, host)) : 0;
}

SEC("tp_btf/sched_waking")
int BPF_PROG(task_wakes, struct task_struct *task)
{
	return wake(task);
}

/* Of a module: before 5.11 its types are not to be had, and these need none. */
SEC("raw_tp/ext4_da_write_end")
int BPF_PROG(ext4_delayed, struct inode *inode, long long at, unsigned int length, unsigned int copied)
{
	return take(inode, copied);
}

SEC("raw_tp/ext4_write_end")
int BPF_PROG(ext4_written, struct inode *inode, long long at, unsigned int length, unsigned int copied)
{
	return take(inode, copied);
}

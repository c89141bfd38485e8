// SPDX-License-Identifier: GPL-2.0
/*
 * Who reads and writes what on some disks: bios are followed from the queue to their completion
 * and counted by disk, process, container and file. Tasks that sat in D state for long are told
 * with their stacks. Pages belong to a file, and dirty ones to who made them dirty.
 */
#include "io_bio.h"
#include <bpf/bpf_tracing.h>

/* include/linux/sched.h */
#define TASK_UNINTERRUPTIBLE 0x2
#define TASK_NOLOAD	     0x400
#define PF_KTHREAD	     0x200000

/* Whether these tracepoints have the queue as their first argument: before 5.11 some do. */
const volatile bool bio_after_queue = false;
const volatile bool rq_after_queue = false;

static __always_inline bool by_kernel(void)
{
	struct task_struct *task = (void *)bpf_get_current_task();

	return BPF_CORE_READ(task, flags) & PF_KTHREAD;
}

/* Which captures want the disk that a filesystem is on. It may be on more than one. */
static __always_inline __u32 wanted(struct super_block *superblock, __u32 *disk)
{
	struct block_device *device = BPF_CORE_READ(superblock, s_bdev);
	__u32 *how;

	if (!device)
		return SLOTS_MASK;
	*disk = number_of(BPF_CORE_READ(device, bd_disk));
	how = bpf_map_lookup_elem(&disks, disk);
	return how ? *how & SLOTS_MASK : 0;
}

/*
 * Whether pages of a file are dirty or being written. A page gets its mark after this tracepoint: a mark seen
 * here is of an earlier page.
 */
static __always_inline bool marked(struct address_space *mapping)
{
	return BPF_CORE_READ(mapping, i_pages.xa_flags) >> MARKS_FROM != 0;
}

/* The first one who makes a file dirty. */
static __always_inline struct written *first_writer(struct address_space *mapping, struct file_id *file,
						    __u64 magic, struct control *now)
{
	struct written written = {.run = now->run};

	own(&written.first);
	written.serial = bpf_ktime_get_ns() << 8 | (bpf_get_smp_processor_id() & 0xff);
	written.mixed = marked(mapping);
	written.exact = (magic == EXT4_SUPER_MAGIC && now->ext4_tells) ||
			(magic == XFS_SUPER_MAGIC && now->xfs_tells);
	bpf_map_update_elem(&dirtiers, file, &written, BPF_ANY);
	return written.mixed ? bpf_map_lookup_elem(&dirtiers, file) : NULL;
}

static __always_inline int dirty(struct address_space *mapping, void *folio)
{
	struct control *now = steering();
	struct super_block *superblock;
	struct file_id file = {};
	struct written *written;
	struct inode *inode;
	__u32 disk = 0;
	__u64 magic;
	bool known;

	inode = mapping ? BPF_CORE_READ(mapping, host) : NULL;
	if (!now || !inode)
		return 0;
	superblock = BPF_CORE_READ(inode, i_sb);
	magic = BPF_CORE_READ(superblock, s_magic);
	if (magic == BDEVFS_MAGIC || !wanted(superblock, &disk))
		return 0;
	identify(inode, superblock, magic, &file);
	written = bpf_map_lookup_elem(&dirtiers, &file);
	known = written && written->run == now->run;
	/* A kernel thread that cleans up after a process is not who wrote. */
	if (by_kernel() && (known || marked(mapping)))
		return 0;
	if (!known)
		written = first_writer(mapping, &file, magic, now);
	else if (!is_own(&written->first))
		share(written);
	if (written && (written->shared || written->mixed))
		note_folio(written, folio);
	return 0;
}

/* Notes who wrote to pages that may be dirty already, of a file that is not one process's alone. */
static __always_inline void note_write(struct file_id *file, struct control *now, __u64 at, __u32 bytes)
{
	struct written *written = bpf_map_lookup_elem(&dirtiers, file);
	__u64 first = at >> page_bits, last = (at + bytes - 1) >> page_bits;

	if (!written || written->run != now->run || (!written->shared && is_own(&written->first)))
		return;
	share(written);
	if (note_pages(written->serial, first, last - first + 1, own_number()))
		written->full = 1;
}

/* Bytes that a filesystem took from a process into its cache. */
static __always_inline int take(struct inode *inode, __u64 at, __u64 bytes)
{
	struct row_key key = {.target = TARGET_FILE};
	struct super_block *superblock = BPF_CORE_READ(inode, i_sb);
	__u32 slots = wanted(superblock, &key.disk);
	struct control *now = steering();
	struct owner owner = {};

	if (!now || !slots || !key.disk || !bytes)
		return 0;
	own(&owner);
	key.container = owner.container;
	key.tgid = owner.tgid;
	identify(inode, superblock, 0, &key.file);
	note_write(&key.file, now, at, bytes);
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
	return dirty(mapping, folio);
}

/* Before 5.16. */
SEC("tp_btf/writeback_dirty_page")
int BPF_PROG(page_dirtied, struct page *page, struct address_space *mapping)
{
	return dirty(mapping, page);
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
	return take(inode, at, copied);
}

SEC("raw_tp/ext4_write_end")
int BPF_PROG(ext4_written, struct inode *inode, long long at, unsigned int length, unsigned int copied)
{
	return take(inode, at, copied);
}

/* It tells before it writes, of as much as is asked for. */
SEC("raw_tp/xfs_file_buffered_write")
int BPF_PROG(xfs_writes, struct kiocb *iocb, struct iov_iter *from)
{
	struct inode *inode = BPF_CORE_READ(iocb, ki_filp, f_inode);
	struct super_block *superblock = BPF_CORE_READ(inode, i_sb);
	struct control *now = steering();
	struct file_id file = {};
	__u32 disk, bytes = BPF_CORE_READ(from, count);

	if (!now || !bytes || !wanted(superblock, &disk))
		return 0;
	identify(inode, superblock, XFS_SUPER_MAGIC, &file);
	note_write(&file, now, BPF_CORE_READ(iocb, ki_pos), bytes);
	return 0;
}

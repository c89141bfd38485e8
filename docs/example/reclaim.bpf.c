// SPDX-License-Identifier: GPL-2.0
/*
 * Reclaims that held a task up: it asked for memory, and had to free some before it got any. Each is sent
 * with the stack that asked. What took no longer than `slow_ns` is not sent.
 */
#include "layout.h"
#include "lost.h"

#define FRAMES_MAX 64

/* The config key `slow`. */
const volatile __u64 slow_ns = 0;

/* As it is sent. */
struct reclaim {
	__u64 container;
	__u64 took_ns;
	__u64 pages;
	__u32 pid;
	__u32 tid;
	char comm[16];
	struct layout layout;
	__u32 kernel_bytes;
	__u32 user_bytes;
	/* Those of the kernel, then those of the process. */
	__u64 frames[2 * FRAMES_MAX];
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
} events SEC(".maps");
RECORD_OF(events, reclaim);

/* By thread: when its reclaim began. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, __u64);
} begun SEC(".maps");

static __always_inline int begin(void)
{
	__u64 thread = bpf_get_current_pid_tgid(), now = bpf_ktime_get_ns();

	bpf_map_update_elem(&begun, &thread, &now, BPF_ANY);
	return 0;
}

static __always_inline void read_stacks(void *ctx, struct reclaim *record)
{
	const __u64 half = FRAMES_MAX * sizeof(__u64);
	long kernel = bpf_get_stack(ctx, record->frames, half, 0);
	long user = bpf_get_stack(ctx, record->frames + FRAMES_MAX, half, BPF_F_USER_STACK);

	record->kernel_bytes = kernel > 0 ? kernel : 0;
	record->user_bytes = user > 0 ? user : 0;
}

static __always_inline int end(void *ctx, __u64 pages)
{
	__u64 thread = bpf_get_current_pid_tgid(), *at = bpf_map_lookup_elem(&begun, &thread), took;
	struct task_struct *task = (void *)bpf_get_current_task();
	struct reclaim *record;

	if (!at)
		return 0;
	took = bpf_ktime_get_ns() - *at;
	bpf_map_delete_elem(&begun, &thread);
	if (took <= slow_ns)
		return 0;
	record = bpf_ringbuf_reserve(&events, sizeof(*record), 0);
	if (!record) {
		count_lost();
		return 0;
	}
	record->container = container_of_task(task);
	record->took_ns = took;
	record->pages = pages;
	record->pid = thread >> 32;
	record->tid = thread;
	bpf_get_current_comm(record->comm, sizeof(record->comm));
	read_layout(&record->layout, task);
	read_stacks(ctx, record);
	bpf_ringbuf_submit(record, 0);
	return 0;
}

SEC("tp_btf/mm_vmscan_direct_reclaim_begin")
int direct_reclaim_begin(__u64 *ctx)
{
	return begin();
}

SEC("tp_btf/mm_vmscan_direct_reclaim_end")
int direct_reclaim_end(__u64 *ctx)
{
	return end(ctx, ctx[0]);
}

SEC("tp_btf/mm_vmscan_memcg_reclaim_begin")
int memcg_reclaim_begin(__u64 *ctx)
{
	return begin();
}

SEC("tp_btf/mm_vmscan_memcg_reclaim_end")
int memcg_reclaim_end(__u64 *ctx)
{
	return end(ctx, ctx[0]);
}

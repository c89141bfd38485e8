// SPDX-License-Identifier: GPL-2.0
/*
 * Reclaims that held a task up: it asked for memory, and had to free some before it got any. What took
 * no longer than `slow_ns` is not sent.
 */
#include "common.h"
#include "lost.h"

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
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 64 * 1024);
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

static __always_inline int end(__u64 pages)
{
	__u64 thread = bpf_get_current_pid_tgid(), *at = bpf_map_lookup_elem(&begun, &thread);
	struct reclaim record = {.pages = pages, .pid = thread >> 32, .tid = thread};

	if (!at)
		return 0;
	record.took_ns = bpf_ktime_get_ns() - *at;
	bpf_map_delete_elem(&begun, &thread);
	if (record.took_ns <= slow_ns)
		return 0;
	record.container = container_of_task((void *)bpf_get_current_task());
	bpf_get_current_comm(record.comm, sizeof(record.comm));
	if (bpf_ringbuf_output(&events, &record, sizeof(record), 0))
		count_lost();
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
	return end(ctx[0]);
}

SEC("tp_btf/mm_vmscan_memcg_reclaim_begin")
int memcg_reclaim_begin(__u64 *ctx)
{
	return begin();
}

SEC("tp_btf/mm_vmscan_memcg_reclaim_end")
int memcg_reclaim_end(__u64 *ctx)
{
	return end(ctx[0]);
}

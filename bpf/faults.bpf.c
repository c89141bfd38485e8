// SPDX-License-Identifier: GPL-2.0
/*
 * Stacks of page faults, weighted in bytes. Usual pages come by a perf event, one fault in
 * FAULTS_EACH. A fault that gets a larger page is one fault too, and nothing about it says so at
 * that time: larger pages are told by their allocation, and sampled by as many bytes.
 */
#include "sampled.h"
#include <bpf/bpf_tracing.h>

struct page;

/* Of how many faults the perf event gives one, and the bytes that they bring. */
const volatile __u32 faults_each = 64;
const volatile __u32 page_bytes = 4096;

/* include/linux/gfp_types.h: GFP_TRANSHUGE_LIGHT is what memory of processes in large pages is asked for
 * with. */
#define GFP_HIGHMEM	 0x2u
#define GFP_MOVABLE	 0x8u
#define GFP_NOMEMALLOC	 0x80000u
#define GFP_OF_PROCESSES (GFP_HIGHMEM | GFP_MOVABLE | GFP_NOMEMALLOC)

/* Larger than the largest page of any process. */
#define ORDER_MAX 20

/* include/linux/sched.h */
#define PF_KTHREAD 0x00200000

/* Bytes in large pages since this CPU's last sample of them. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} large_bytes SEC(".maps");

static __always_inline __u64 bytes_each(void)
{
	return (__u64)faults_each * page_bytes;
}

static __always_inline int take_large(void *ctx, __u32 order, __u32 gfp_flags)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	__u64 *bytes, weight;
	__u32 zero = 0;

	if (!order || order > ORDER_MAX || (gfp_flags & GFP_OF_PROCESSES) != GFP_OF_PROCESSES)
		return 0;
	/* khugepaged puts pages together that were there before. */
	if (BPF_CORE_READ(task, flags) & PF_KTHREAD)
		return 0;
	bytes = bpf_map_lookup_elem(&large_bytes, &zero);
	if (!bytes)
		return 0;
	*bytes += (__u64)page_bytes << order;
	if (*bytes < bytes_each())
		return 0;
	weight = *bytes;
	*bytes = 0;
	return take_sample(ctx, USER_ONLY, weight);
}

SEC("perf_event")
int sample_fault(void *ctx)
{
	return take_sample(ctx, USER_ONLY, bytes_each());
}

SEC("tp_btf/mm_page_alloc")
int BPF_PROG(sample_large_page, struct page *page, unsigned int order, unsigned int gfp_flags)
{
	return page ? take_large(ctx, order, gfp_flags) : 0;
}

/* SPDX-License-Identifier: GPL-2.0 */
/* How long a cgroup was throttled on a CPU: noted when its tasks leave the CPU and get it again. */
#ifndef ONSET_WAITS_THROTTLE_H
#define ONSET_WAITS_THROTTLE_H

#include "waits_account.h"

/* All time that a cgroup was throttled on its CPU. Earlier kernels know it under other names. */
static __always_inline __u64 throttled_total(struct cfs_rq *queue)
{
	struct cfs_rq___pelt *pelt = (void *)queue;
	struct cfs_rq___task *task = (void *)queue;

	if (bpf_core_field_exists(queue->throttled_clock_self_time))
		return queue->throttled_clock_self_time;
	if (bpf_core_field_exists(pelt->throttled_clock_pelt_time))
		return BPF_CORE_READ(pelt, throttled_clock_pelt_time);
	if (bpf_core_field_exists(task->throttled_clock_task_time))
		return BPF_CORE_READ(task, throttled_clock_task_time);
	return 0;
}

static __always_inline bool is_throttled(struct cfs_rq *queue)
{
	return bpf_core_field_exists(queue->throttle_count) && queue->throttle_count;
}

/* A task of this cgroup leaves the CPU: perhaps because it is throttled. */
static __always_inline void note_throttle(struct cfs_rq *queue, __u64 cgroup, __u64 now)
{
	struct throttle fresh = {}, *throttle;
	__u64 total = throttled_total(queue);

	if (!total && !is_throttled(queue))
		return;
	fresh.total = total;
	throttle = value_of(&throttles, &cgroup, &fresh);
	if (!throttle || !is_throttled(queue))
		return;
	/*
	 * A throttled task goes on until it leaves the kernel, and may wait for the CPU once more before
	 * that: the pause begins after, as the queue then knows.
	 */
	if (bpf_core_field_exists(queue->throttled_clock_self) && queue->throttled_clock_self)
		throttle->since = queue->throttled_clock_self;
	else if (!throttle->since)
		throttle->since = now;
}

/* A task of this cgroup gets the CPU: if it was throttled, that is over, and known by now. */
static __always_inline void end_throttle(struct throttle *throttle, struct cfs_rq *queue)
{
	__u64 total = throttled_total(queue);

	if (throttle->since && total != throttle->total) {
		struct pause *pause = &throttle->pauses[throttle->head & (PAUSES - 1)];

		pause->from = throttle->since;
		pause->until = throttle->since + (total - throttle->total);
		throttle->head++;
		throttle->since = 0;
	} else if (throttle->since && !is_throttled(queue)) {
		throttle->since = 0;
	}
	throttle->total = total;
}

/* How much of [from, until] a cgroup was throttled. */
static __always_inline __u64 paused(struct throttle *throttle, __u64 from, __u64 until)
{
	__u64 sum = 0;

#pragma unroll
	for (int i = 0; i < PAUSES; i++) {
		__u64 begin = throttle->pauses[i].from, end = throttle->pauses[i].until;

		begin = begin < from ? from : begin;
		end = end > until ? until : end;
		if (end > begin)
			sum += end - begin;
	}
	return sum > until - from ? until - from : sum;
}

#endif

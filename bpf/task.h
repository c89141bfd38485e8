/* SPDX-License-Identifier: GPL-2.0 */
/* What a task is doing, and since when, out of its own fields: no hook is needed for it. */
#ifndef ONSET_TASK_H
#define ONSET_TASK_H

#include "common.h"

static __always_inline __u32 state_of(struct task_struct *task)
{
	struct task_struct___old *old = (void *)task;

	if (bpf_core_field_exists(task->__state))
		return task->__state;
	return BPF_CORE_READ(old, state);
}

/*
 * When a task left its CPU, on the clock of its run queue. The kernel notes when it got the CPU, and
 * how long it ran. It also notes when it stopped, but on a clock that leaves interrupts out: that is
 * too early by all there were before, and with those there were since it is too late.
 */
static __always_inline __u64 left_cpu(struct task_struct *task, struct rq *rq)
{
	__u64 since = task->se.exec_start, latest = since + (rq->clock - rq->clock_task), left;

	if (!since || !bpf_core_field_exists(task->sched_info.last_arrival))
		return since ? latest : 0;
	left = task->sched_info.last_arrival;
	if (bpf_core_field_exists(task->se.prev_sum_exec_runtime))
		left += task->se.sum_exec_runtime - task->se.prev_sum_exec_runtime;
	if (left > since)
		since = left;
	/* Of real-time tasks the kernel does not note how long they ran this time. */
	return since < latest ? since : latest;
}

/* For how long a task has been off the CPU. The clock of an idle CPU stands still: that of this one does not.
 */
static __always_inline __u64 off_cpu_for(struct task_struct *task)
{
	struct task_struct *here = (void *)bpf_get_current_task();
	struct rq *rq = task->se.cfs_rq->rq;
	__u64 clock = rq->clock;
	__u64 now = BPF_CORE_READ(here, se.cfs_rq, rq, clock);
	__u64 since = left_cpu(task, rq);

	if (clock > now)
		now = clock;
	return since && now > since ? now - since : 0;
}

#endif

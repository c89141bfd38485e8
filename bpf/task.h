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
 * For how long a task has been off the CPU: since its runtime was last accounted, which is on the
 * clock of its run queue less interrupt time, or since it was last put on a CPU. The clock of an
 * idle CPU stands still: that of this one does not.
 */
static __always_inline __u64 off_cpu_for(struct task_struct *task)
{
	struct task_struct *here = (void *)bpf_get_current_task();
	struct rq *rq = task->se.cfs_rq->rq;
	__u64 clock = rq->clock;
	__u64 now = BPF_CORE_READ(here, se.cfs_rq, rq, clock);
	__u64 since = task->se.exec_start;

	if (since)
		since += clock - rq->clock_task;
	if (bpf_core_field_exists(task->sched_info.last_arrival) && task->sched_info.last_arrival > since)
		since = task->sched_info.last_arrival;
	if (clock > now)
		now = clock;
	return since && now > since ? now - since : 0;
}

#endif

// SPDX-License-Identifier: GPL-2.0
/*
 * All tasks, by the task iterator: each in a few bytes, or those in D state with their kernel
 * stacks. Neither attaches anything; both cost only while they are read.
 */
#define TYPED_POINTERS
#include "task.h"

#define FRAMES_MAX 64

/* include/linux/sched.h. TASK_UNINTERRUPTIBLE may have more bits beside it: 0x2002 waits for a frozen
 * filesystem. */
#define TASK_UNINTERRUPTIBLE 0x2
#define TASK_NOLOAD	     0x400
/* Until 6.1 a frozen task was in D state with this flag; the bit means something else now. */
#define PF_FROZEN 0x10000

/* A task in short. */
struct task_summary {
	__u64 container;
	__u64 blocked_ns;
	__u32 state;
	__u16 exit_state;
	__u8 blocked;
	__u8 in_iowait;
};
RECORD_OF(summarize_tasks, task_summary);

/* A task in D state. */
struct stuck {
	__u64 container;
	__u64 blocked_ns;
	__u32 tgid;
	__u32 pid;
	__u32 in_iowait;
	__u32 stack_bytes;
	char comm[16];
	__u64 stack[FRAMES_MAX];
};
RECORD_OF(stuck_tasks, stuck);

/* One reader at a time: userspace sees to it. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct stuck);
} scratch SEC(".maps");

/* Whether this kernel marks frozen tasks by PF_FROZEN. */
const volatile bool frozen_by_flag = false;

/* D state as the load average counts it, whether or not it is accounted as iowait. */
static __always_inline bool is_blocked(struct task_struct *task)
{
	__u32 state = state_of(task);

	if (!(state & TASK_UNINTERRUPTIBLE) || (state & TASK_NOLOAD) || task->exit_state)
		return false;
	return !(frozen_by_flag && (task->flags & PF_FROZEN));
}

static __always_inline int pass_by(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct task_summary seen = {};

	if (!task)
		return 0;
	seen.container = container_of_task(task);
	seen.state = state_of(task);
	seen.exit_state = task->exit_state;
	seen.blocked = is_blocked(task);
	if (seen.blocked) {
		seen.blocked_ns = off_cpu_for(task);
		seen.in_iowait = BPF_CORE_READ_BITFIELD(task, in_iowait);
	}
	bpf_seq_write(ctx->meta->seq, &seen, sizeof(seen));
	return 0;
}

static __always_inline int look_at(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct stuck *stuck;
	__u32 zero = 0;
	long bytes;

	if (!task || !is_blocked(task))
		return 0;
	stuck = bpf_map_lookup_elem(&scratch, &zero);
	if (!stuck)
		return 0;
	stuck->container = container_of_task(task);
	stuck->blocked_ns = off_cpu_for(task);
	stuck->tgid = task->tgid;
	stuck->pid = task->pid;
	stuck->in_iowait = BPF_CORE_READ_BITFIELD(task, in_iowait);
	bpf_probe_read_kernel(stuck->comm, sizeof(stuck->comm), task->comm);
	bytes = bpf_get_task_stack(task, stuck->stack, sizeof(stuck->stack), 0);
	stuck->stack_bytes = bytes > 0 ? bytes : 0;
	bpf_seq_write(ctx->meta->seq, stuck, sizeof(*stuck));
	return 0;
}

SEC("iter/task")
int summarize_tasks(struct bpf_iter__task *ctx)
{
	return pass_by(ctx);
}

SEC("iter/task")
int stuck_tasks(struct bpf_iter__task *ctx)
{
	return look_at(ctx);
}

/* SPDX-License-Identifier: GPL-2.0 */
/* Which program a process executes, told by where that lies. */
#ifndef ONSET_LAYOUT_H
#define ONSET_LAYOUT_H

#include "common.h"

/*
 * Where a process's program, and its first stack, lie: /proc/PID/stat tells the same. It is random
 * for each exec, so userspace knows by it whether it looks at the program that was sampled.
 */
struct layout {
	__u64 start_code;
	__u64 end_code;
	__u64 start_stack;
};

static __always_inline void read_layout(struct layout *layout, struct task_struct *task)
{
	struct mm_struct *mm = BPF_CORE_READ(task, mm);

	layout->start_code = BPF_CORE_READ(mm, start_code);
	layout->end_code = BPF_CORE_READ(mm, end_code);
	layout->start_stack = BPF_CORE_READ(mm, start_stack);
}

#endif

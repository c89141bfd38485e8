/* SPDX-License-Identifier: GPL-2.0 */
/* The sums of each group, and what is remembered of each task. `in_tasks` is declared before. */
#ifndef ONSET_WAITS_ACCOUNT_H
#define ONSET_WAITS_ACCOUNT_H

#include "waits.h"

/* This CPU's value of a key, made if need be. NULL: there is no room. */
static __always_inline void *value_of(void *map, const void *key, const void *fresh)
{
	void *value = bpf_map_lookup_elem(map, key);

	if (value)
		return value;
	bpf_map_update_elem(map, key, fresh, BPF_NOEXIST);
	value = bpf_map_lookup_elem(map, key);
	if (!value)
		count_lost();
	return value;
}

/* Puts what this CPU has summed up into its group's account. */
static __always_inline void settle(struct cpu *cpu)
{
	struct account fresh = {}, *account = NULL;
	__u64 group = cpu->sums_of;

	if (group)
		account = value_of(&accounts, &group, &fresh);
	if (account) {
		account->ran += cpu->sums.ran;
		account->waited += cpu->sums.waited;
		account->inner += cpu->sums.inner;
		account->external += cpu->sums.external;
		account->throttled += cpu->sums.throttled;
		account->unheld += cpu->sums.unheld;
		account->waits += cpu->sums.waits;
	}
	cpu->sums = fresh;
	cpu->sums_of = 0;
}

/* Where this CPU sums up what is of this group. */
static __always_inline struct account *account_of(struct cpu *cpu, __u64 group)
{
	if (cpu->sums_of != group) {
		settle(cpu);
		cpu->sums_of = group;
	}
	return &cpu->sums;
}

static __always_inline struct memory *memory_of(struct task_struct *task, bool make)
{
	struct memory fresh = {};
	struct memory *memory;
	__u32 pid;

	if (in_tasks)
		return bpf_task_storage_get(&memories, task, NULL, make ? BPF_LOCAL_STORAGE_GET_F_CREATE : 0);
	pid = task->pid;
	memory = bpf_map_lookup_elem(&memories_by_pid, &pid);
	if (memory || !make)
		return memory;
	bpf_map_update_elem(&memories_by_pid, &pid, &fresh, BPF_ANY);
	return bpf_map_lookup_elem(&memories_by_pid, &pid);
}

/* Whether this run knows of the task already; now it does. */
static __always_inline bool refresh(struct memory *memory, struct task_struct *task)
{
	__u64 cgroup = cgroup_of(task)->kn->id;
	__u32 zero = 0;
	__u64 *run = bpf_map_lookup_elem(&current_run, &zero);
	__u64 container;
	bool known;

	if (!run)
		return false;
	known = memory->run == *run;
	if (known && memory->cgroup == cgroup)
		return true;
	container = container_of_task(task);
	memory->run = *run;
	memory->cgroup = cgroup;
	memory->group = container ? container : cgroup;
	return known;
}

#endif

// SPDX-License-Identifier: GPL-2.0
/*
 * What is read of containers at each tick, of many cgroups in one run. Nothing is attached: userspace
 * fills in which cgroups, by open descriptors of their folders, runs the program, and reads the counters
 * from the same memory. No lock is taken: the iterator of cgroups would take cgroup_mutex, which is held
 * for milliseconds while a container starts.
 */
#include "cgroups_cpu.h"
#include "cgroups_memory.h"

static long tell(__u32 index, void *unused)
{
	struct cgroup_record *record = bpf_map_lookup_elem(&records, &index);
	struct cgroup_parts parts = {};

	if (!record)
		return 1;
	find_parts(record, &parts);
	if (record->wanted & WANT_CPU)
		tell_time(record, &parts);
	if ((record->wanted & WANT_CPU) && !(record->told & SAME_TIME)) {
		tell_cpu(record, &parts);
		tell_cpus(record, &parts);
	}
	if (record->wanted & WANT_MEMORY)
		tell_memory(record, parts.states[MEMORY]);
	return 0;
}

/* Never attached: userspace runs it, and says how many records it fills in. */
SEC("raw_tp/sched_switch")
int read_cgroups(__u64 *asked)
{
	bpf_loop(asked[0], tell, NULL, 0);
	return 0;
}

/* Where a CPU's part of a per-CPU map's value is, less what the map has as its per-CPU pointer. */
static long find_part(__u32 cpu, void *unused)
{
	struct cpu_part *part = bpf_map_lookup_elem(&cpu_parts, &cpu);
	__u32 zero = 0;
	void *there = bpf_map_lookup_percpu_elem(&marker, &zero, cpu);

	if (!part || !there)
		return 1;
	part->seen = (__u64)there;
	part->map = (__u64)&marker;
	part->offset =
		part->seen - read_u64((void *)part->map + bpf_core_field_offset(struct bpf_array, pptrs));
	return 0;
}

/* Never attached: userspace runs it once. */
SEC("raw_tp/sched_switch")
int find_cpu_parts(void *ctx)
{
	bpf_loop(possible_cpus, find_part, NULL, 0);
	return 0;
}

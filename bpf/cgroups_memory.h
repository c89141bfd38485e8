/* SPDX-License-Identifier: GPL-2.0 */
/* Memory of a cgroup. */
#ifndef ONSET_CGROUPS_MEMORY_H
#define ONSET_CGROUPS_MEMORY_H

#include "cgroups.h"

/* Counts of pages: of the lists of anonymous memory and what is locked, of what is mapped, of what is shared.
 */
struct pages {
	__s64 lists[5];
	__s64 anon;
	__s64 shmem;
};

struct page_sum {
	void *of_cpus;
	struct pages pages;
};

static __always_inline void add_pages(struct pages *sum, const void *state, __s64 sign)
{
	__u64 anon = PACKED_ANON, shmem = PACKED_SHMEM;
	struct pages one = {};

	if (bpf_core_field_size(((struct memcg_vmstats *)0)->state) / 8 >=
	    bpf_core_enum_value(enum memcg_stat_item, MEMCG_NR_STAT)) {
		anon = bpf_core_enum_value(enum node_stat_item, NR_ANON_MAPPED);
		shmem = bpf_core_enum_value(enum node_stat_item, NR_SHMEM);
	}
	bpf_probe_read_kernel(one.lists, sizeof(one.lists), state);
	one.anon = read_u64(state + anon * 8);
	one.shmem = read_u64(state + shmem * 8);
	sum->lists[0] += sign * one.lists[0];
	sum->lists[1] += sign * one.lists[1];
	sum->lists[4] += sign * one.lists[4];
	sum->anon += sign * one.anon;
	sum->shmem += sign * one.shmem;
}

static long add_cpu_pages(__u32 cpu, struct page_sum *sum)
{
	void *of_cpu_here = of_cpu(sum->of_cpus, cpu);

	if (!of_cpu_here)
		return 1;
	add_pages(&sum->pages, of_cpu_here + bpf_core_field_offset(struct memcg_vmstats_percpu, state_prev),
		  -1);
	add_pages(&sum->pages, of_cpu_here + bpf_core_field_offset(struct memcg_vmstats_percpu, state), 1);
	return 0;
}

/* The sum of all, and what CPUs did not bring into it yet; of cgroups below, that is not known here. */
static __always_inline void tell_pages(struct cgroup_record *record, struct mem_cgroup *group)
{
	struct memcg_vmstats *stats = BPF_CORE_READ(group, vmstats);
	void *folded = (void *)stats + bpf_core_field_offset(stats->state);
	struct page_sum sum = {.of_cpus = BPF_CORE_READ(group, vmstats_percpu)};
	struct pages after = {};

	if (!stats || has_children(&group->css))
		return;
	add_pages(&sum.pages, folded, 1);
	after = sum.pages;
	add_pages(&sum.pages, (void *)stats + bpf_core_field_offset(stats->state_pending), 1);
	bpf_loop(possible_cpus, add_cpu_pages, &sum, 0);
	add_pages(&after, folded, -1);
	/* Else a part may be counted twice, or not at all. */
	if (after.lists[0] || after.lists[1] || after.lists[4] || after.anon || after.shmem)
		return;
	record->inactive_anon = sum.pages.lists[0];
	record->active_anon = sum.pages.lists[1];
	record->unevictable = sum.pages.lists[4];
	record->anon = sum.pages.anon;
	record->shmem = sum.pages.shmem;
	record->told |= PAGES;
}

static __always_inline void tell_memory(struct cgroup_record *record, struct mem_cgroup *group)
{
	struct page_counter *counter = (void *)group + bpf_core_field_offset(group->memory);
	__u64 lowest = NONE;

	if (!group)
		return;
	record->usage = BPF_CORE_READ(counter, usage.counter);
	if (record->usage == record->known_usage) {
		record->told |= SAME_USAGE;
		return;
	}
	for (int level = 0; level < ABOVE_MAX && counter; level++) {
		__u64 limit = BPF_CORE_READ(counter, max);

		if (limit < lowest)
			lowest = limit;
		counter = BPF_CORE_READ(counter, parent);
	}
	if (counter)
		return;
	record->limit = lowest;
	record->told |= USAGE;
	/* All pages are counted in it before they are of any kind; what was told before is zero. */
	if (!record->usage)
		record->told |= PAGES;
	else if (bpf_core_field_exists(group->vmstats) && bpf_core_type_exists(struct memcg_vmstats))
		tell_pages(record, group);
}

#endif

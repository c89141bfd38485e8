// SPDX-License-Identifier: GPL-2.0
/*
 * What is read of containers at each tick, of many cgroups in one run. Nothing is attached: userspace
 * fills in which cgroups, by open descriptors of their folders, runs the program, and reads the counters
 * from the same memory. No lock is taken: the iterator of cgroups would take cgroup_mutex, which is held
 * for milliseconds while a container starts.
 */
#include "common.h"

/* Records that one run fills in at most. */
#define BATCH 64

/* Cgroups from one up to the root, where a bound of each holds. */
#define ABOVE_MAX 16

/* linux/magic.h */
#define CGROUP_SUPER_MAGIC  0x27e0eb
#define CGROUP2_SUPER_MAGIC 0x63677270

/* A quota or a limit that is none. */
#define NONE ~0ULL

/* Where NR_ANON_MAPPED and NR_SHMEM stand in kernels that count fewer items than there are: the order of
 * memcg_node_stat_items in mm/memcontrol.c. Userspace believes it only once it agrees with memory.stat. */
#define PACKED_ANON  14
#define PACKED_SHMEM 19

/* The hierarchies of v1; on v2 all are the first. */
enum hierarchy {
	CPU,
	CPUACCT,
	MEMORY,
	CPUSET,
	HIERARCHIES,
};

/* What a record is asked for. */
enum wanted {
	WANT_CPU = 1 << 0,
	WANT_MEMORY = 1 << 1,
};

/* What a record tells. */
enum told {
	TIME = 1 << 0,
	THROTTLING = 1 << 1,
	QUOTA = 1 << 2,
	CPUS = 1 << 3,
	USAGE = 1 << 4,
	PAGES = 1 << 5,
	/* It used no CPU since what is known of it, so all else of its CPU is as it was. */
	SAME_TIME = 1 << 6,
	SAME_USAGE = 1 << 7,
	/* The cpu controller is off for it: it has no quota and is never throttled. */
	NO_CPU = 1 << 8,
};

/* One cgroup. */
struct cgroup_record {
	/* Asked for: a descriptor of its folder in each hierarchy, or -1. */
	__s32 folders[HIERARCHIES];
	/* The nodes of these folders, which last as long as the descriptors; 0 is not known yet. */
	__u64 nodes[HIERARCHIES];
	/* enum wanted */
	__u64 wanted;
	/* What is known of it, or NONE. */
	__u64 known_total_ns;
	__u64 known_usage;
	/* Told: enum told. */
	__u64 told;
	/* The modes are counted by ticks; all of it exactly. */
	__u64 user_ns;
	__u64 system_ns;
	__u64 total_ns;
	/* What the text file last said of both, which never goes back. */
	__u64 last_user_ns;
	__u64 last_system_ns;
	__u64 periods;
	__u64 throttled_periods;
	__u64 throttled_ns;
	/* The lowest from here up to the root. */
	__u64 quota_us;
	__u64 period_us;
	/* A mask. */
	__u64 cpus;
	/* In pages. */
	__u64 usage;
	__u64 limit;
	__s64 inactive_anon;
	__s64 active_anon;
	__s64 unevictable;
	__s64 anon;
	__s64 shmem;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, BATCH);
	__type(key, __u32);
	__type(value, struct cgroup_record);
} records SEC(".maps");

/* How far each CPU's part of per-CPU memory is from a pointer to it, and how it was found out. */
struct cpu_part {
	__u64 offset;
	/* Pointers, read back as numbers: the verifier lets nobody reckon with them. */
	volatile __u64 seen;
	volatile __u64 map;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct cpu_part);
} cpu_parts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} marker SEC(".maps");

/* How many CPUs can ever be online. */
const volatile __u32 possible_cpus = 1;

static __always_inline __u64 read_u64(const void *from)
{
	__u64 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), from);
	return value;
}

/* Where the memory behind a per-CPU pointer is for one CPU. NULL: there is no such CPU. */
static __always_inline void *of_cpu(const void *pointer, __u32 cpu)
{
	struct cpu_part *part = bpf_map_lookup_elem(&cpu_parts, &cpu);

	return part ? (void *)pointer + part->offset : NULL;
}

/* The node of an open folder, unless that is no cgroup's. */
static __always_inline void *node_of(__s32 folder)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct fdtable *table = BPF_CORE_READ(task, files, fdt);
	struct file *file = NULL;
	struct inode *inode;
	__u64 magic;

	if (folder < 0 || (__u32)folder >= BPF_CORE_READ(table, max_fds))
		return NULL;
	bpf_probe_read_kernel(&file, sizeof(file), BPF_CORE_READ(table, fd) + folder);
	inode = BPF_CORE_READ(file, f_inode);
	magic = BPF_CORE_READ(inode, i_sb, s_magic);
	if (magic != CGROUP_SUPER_MAGIC && magic != CGROUP2_SUPER_MAGIC)
		return NULL;
	return BPF_CORE_READ(inode, i_private);
}

/* A cgroup, by hierarchy, and what its controllers have of it. */
struct cgroup_parts {
	struct cgroup *cgroups[HIERARCHIES];
	void *states[HIERARCHIES];
};

/* The cgroup of a folder. It lasts as long as the program runs: that is a read-side section of RCU. */
static __always_inline void find_cgroup(struct cgroup_record *record, struct cgroup_parts *parts,
					enum hierarchy hierarchy)
{
	struct kernfs_node *node;

	if (!record->nodes[hierarchy])
		record->nodes[hierarchy] = (__u64)node_of(record->folders[hierarchy]);
	node = (void *)record->nodes[hierarchy];
	parts->cgroups[hierarchy] = node ? BPF_CORE_READ(node, priv) : NULL;
}

static __always_inline void find_state(struct cgroup_parts *parts, enum hierarchy hierarchy, __u32 index)
{
	void *states = (void *)parts->cgroups[hierarchy] + bpf_core_field_offset(struct cgroup, subsys);

	parts->states[hierarchy] = parts->cgroups[hierarchy] ? (void *)read_u64(states + index * 8) : NULL;
}

#define FIND_STATE(parts, hierarchy, id)                                                                     \
	if (bpf_core_enum_value_exists(enum cgroup_subsys_id, id))                                           \
	find_state(parts, hierarchy, bpf_core_enum_value(enum cgroup_subsys_id, id))

/*
 * Follows the pointers of all hierarchies step by step: none of these reads waits for the one before it,
 * so a CPU has several under way where memory is slow.
 */
static __always_inline void find_parts(struct cgroup_record *record, struct cgroup_parts *parts)
{
	find_cgroup(record, parts, CPU);
	if (unified) {
		parts->cgroups[CPUACCT] = parts->cgroups[CPU];
		parts->cgroups[MEMORY] = parts->cgroups[CPU];
		parts->cgroups[CPUSET] = parts->cgroups[CPU];
	} else {
		find_cgroup(record, parts, CPUACCT);
		find_cgroup(record, parts, MEMORY);
		find_cgroup(record, parts, CPUSET);
	}
	FIND_STATE(parts, CPU, cpu_cgrp_id);
	FIND_STATE(parts, CPUACCT, cpuacct_cgrp_id);
	FIND_STATE(parts, MEMORY, memory_cgrp_id);
	FIND_STATE(parts, CPUSET, cpuset_cgrp_id);
}

static __always_inline bool has_children(struct cgroup_subsys_state *css)
{
	struct list_head *children = (void *)css + bpf_core_field_offset(css->children);

	return BPF_CORE_READ(children, next) != children;
}

/* CPU time, summed over CPUs. */
struct time_sum {
	void *usage;
	void *modes;
	__u64 total;
	__u64 user;
	__u64 system;
};

/* enum cpu_usage_stat */
static long add_cpuacct(__u32 cpu, struct time_sum *sum)
{
	void *usage = of_cpu(sum->usage, cpu), *modes = of_cpu(sum->modes, cpu);
	/* User, nice, system, soft interrupts, interrupts. */
	__u64 times[5] = {};

	if (!usage || !modes)
		return 1;
	sum->total += read_u64(usage);
	bpf_probe_read_kernel(times, sizeof(times), modes);
	sum->user += times[0] + times[1];
	sum->system += times[2] + times[3] + times[4];
	return 0;
}

/* What a CPU counted and did not bring into the sum of all yet. */
static long add_base(__u32 cpu, struct time_sum *sum)
{
	struct task_cputime now = {}, last = {};
	void *base = of_cpu(sum->usage, cpu);

	if (!base)
		return 1;
	if (bpf_core_type_exists(struct cgroup_rstat_base_cpu)) {
		BPF_CORE_READ_INTO(&last, (struct cgroup_rstat_base_cpu *)base, last_bstat.cputime);
		BPF_CORE_READ_INTO(&now, (struct cgroup_rstat_base_cpu *)base, bstat.cputime);
	} else {
		BPF_CORE_READ_INTO(&last, (struct cgroup_rstat_cpu *)base, last_bstat.cputime);
		BPF_CORE_READ_INTO(&now, (struct cgroup_rstat_cpu *)base, bstat.cputime);
	}
	sum->total += now.sum_exec_runtime - last.sum_exec_runtime;
	sum->user += now.utime - last.utime;
	sum->system += now.stime - last.stime;
	return 0;
}

/* v1: cpuacct counts a cgroup with all below it. */
static __always_inline bool sum_cpuacct(struct cpuacct *cpuacct, struct time_sum *sum)
{
	if (!cpuacct || !bpf_core_type_exists(struct cpuacct))
		return false;
	sum->usage = BPF_CORE_READ(cpuacct, cpuusage);
	sum->modes = BPF_CORE_READ(cpuacct, cpustat);
	bpf_loop(possible_cpus, add_cpuacct, sum, 0);
	return true;
}

/* v2: the sum of all, and what CPUs did not bring into it yet; of cgroups below, that is not known here. */
static __always_inline bool sum_base(struct cgroup *cgroup, struct time_sum *sum)
{
	struct task_cputime before = {}, after = {};

	if (!cgroup || has_children((void *)cgroup + bpf_core_field_offset(cgroup->self)))
		return false;
	if (bpf_core_field_exists(cgroup->rstat_base_cpu))
		sum->usage = BPF_CORE_READ(cgroup, rstat_base_cpu);
	else
		sum->usage = BPF_CORE_READ((struct cgroup___rstat *)cgroup, rstat_cpu);
	BPF_CORE_READ_INTO(&before, cgroup, bstat.cputime);
	bpf_loop(possible_cpus, add_base, sum, 0);
	BPF_CORE_READ_INTO(&after, cgroup, bstat.cputime);
	sum->total += before.sum_exec_runtime;
	sum->user += before.utime;
	sum->system += before.stime;
	/* Else a part may be counted twice, or not at all. */
	return before.sum_exec_runtime == after.sum_exec_runtime;
}

static __always_inline void tell_time(struct cgroup_record *record, struct cgroup_parts *parts)
{
	struct cgroup *cgroup = parts->cgroups[unified ? CPU : CPUACCT];
	struct time_sum sum = {};

	if (!(unified ? sum_base(cgroup, &sum) : sum_cpuacct(parts->states[CPUACCT], &sum)))
		return;
	if (sum.total == record->known_total_ns) {
		record->told |= SAME_TIME;
		return;
	}
	record->total_ns = sum.total;
	record->user_ns = sum.user;
	record->system_ns = sum.system;
	record->last_user_ns = BPF_CORE_READ(cgroup, prev_cputime.utime);
	record->last_system_ns = BPF_CORE_READ(cgroup, prev_cputime.stime);
	record->told |= TIME;
}

/* The lowest quota of a group and those above it. */
static __always_inline void tell_quota(struct cgroup_record *record, struct task_group *group)
{
	__u64 lowest = NONE, lowest_period = 1;

	for (int level = 0; level < ABOVE_MAX; level++) {
		__u64 quota, period;

		if (!group) {
			record->quota_us = lowest;
			record->period_us = lowest_period;
			record->told |= QUOTA;
			return;
		}
		quota = BPF_CORE_READ(group, cfs_bandwidth.quota);
		if (quota != NONE) {
			quota /= 1000;
			period = (__u64)BPF_CORE_READ(group, cfs_bandwidth.period) / 1000;
			if (lowest == NONE || quota * lowest_period < lowest * period) {
				lowest = quota;
				lowest_period = period;
			}
		}
		group = BPF_CORE_READ(group, parent);
	}
}

static __always_inline void tell_cpu(struct cgroup_record *record, struct cgroup_parts *parts)
{
	struct task_group *group = parts->states[CPU];

	if (!group && parts->cgroups[CPU])
		record->told |= NO_CPU;
	if (!group || !bpf_core_field_exists(group->cfs_bandwidth.nr_periods))
		return;
	record->periods = (__u32)BPF_CORE_READ(group, cfs_bandwidth.nr_periods);
	record->throttled_periods = (__u32)BPF_CORE_READ(group, cfs_bandwidth.nr_throttled);
	record->throttled_ns = BPF_CORE_READ(group, cfs_bandwidth.throttled_time);
	record->told |= THROTTLING;
	tell_quota(record, group);
}

/* As many CPUs as there can be here are in the first word. None: it has no cpuset of its own. */
static __always_inline void tell_cpus(struct cgroup_record *record, struct cgroup_parts *parts)
{
	struct cpuset *set = parts->states[CPUSET];
	struct cpuset___inside *inside = (void *)set;

	if (!parts->cgroups[CPUSET])
		return;
	if (!set)
		record->cpus = 0;
	else if (bpf_core_field_exists(inside->effective_cpus[0].bits))
		record->cpus = BPF_CORE_READ(inside, effective_cpus[0].bits[0]);
	else
		record->cpus = read_u64(BPF_CORE_READ(set, effective_cpus));
	record->told |= CPUS;
}

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

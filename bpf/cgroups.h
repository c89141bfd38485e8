/* SPDX-License-Identifier: GPL-2.0 */
/* What is asked for and told of a cgroup, and the way to its parts in the kernel. */
#ifndef ONSET_CGROUPS_H
#define ONSET_CGROUPS_H

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

#endif

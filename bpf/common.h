/* SPDX-License-Identifier: GPL-2.0 */
/* What every program needs: whose a task is. */
#ifndef ONSET_COMMON_H
#define ONSET_COMMON_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

/*
 * Declares what a program hands to userspace through a ring buffer, or an iterator by its program's name:
 * build.rs finds it among the object's types, and writes the Rust side. Keys and values of maps it knows by
 * themselves. The section is loaded nowhere.
 */
#define RECORD_OF(source, record) struct record *source##__##record SEC(".records")

/*
 * How to follow pointers, READ(a, b, c) being a->b->c. A program that is given a pointer whose type
 * the verifier knows may follow it by plain loads, which are ten times faster: it says so.
 */
#ifdef TYPED_POINTERS
#define READ(from, ...)	   ___arrow(from, __VA_ARGS__)
#define READ_AT(to, place) to = *(place)
#else
#define READ(from, ...)	   BPF_CORE_READ(from, __VA_ARGS__)
#define READ_AT(to, place) bpf_probe_read_kernel(&to, sizeof(to), place)
#endif

/* How many cgroups are looked at: from a task's up, then from the root down. No runtime nests more. */
#define CGROUP_LEVELS_MAX 64

/*
 * The containers by the ids of their cgroups; userspace keeps it and gives the same map to all
 * objects. A value of 0 stands for no container, so it is never in here.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, __u64);
} containers SEC(".maps");

/* Whether cgroup ids are those of the unified hierarchy (v2), else of v1's cpu hierarchy. */
const volatile bool unified = false;

/* The cgroup of a task in the hierarchy that containers are told apart in. */
static __always_inline struct cgroup *cgroup_of(struct task_struct *task)
{
	struct css_set *set = READ(task, cgroups);
	struct cgroup_subsys_state *css = NULL;
	__u64 index;

	if (unified)
		return READ(set, dfl_cgrp);
	/* Which subsystem has which index depends on the kernel's config. */
	index = bpf_core_enum_value(enum cgroup_subsys_id, cpu_cgrp_id);
	READ_AT(css, (struct cgroup_subsys_state **)((void *)&set->subsys + index * sizeof(css)));
	return READ(css, cgroup);
}

/* The id of the cgroup above `cgroup` that lies `level` levels below the root. */
static __always_inline __u64 ancestor_id(struct cgroup *cgroup, __u64 level)
{
	struct cgroup___ids *old = (void *)cgroup;
	struct cgroup *above = NULL;
	__u64 id = 0;

	if (bpf_core_field_exists(cgroup->ancestors)) {
		bpf_probe_read_kernel(&above, sizeof(above),
				      (void *)&cgroup->ancestors + level * sizeof(above));
		return BPF_CORE_READ(above, kn, id);
	}
	bpf_probe_read_kernel(&id, sizeof(id), (void *)&old->ancestor_ids + level * sizeof(id));
	return id;
}

/*
 * The container of a cgroup that is deeper than was walked: whoever may nest cgroups may nest them
 * without end, and is still in the container that lies near the root.
 */
static __always_inline __u64 container_near_root(struct cgroup *cgroup)
{
	for (int level = CGROUP_LEVELS_MAX - 1; level >= 0; level--) {
		__u64 id = ancestor_id(cgroup, level);
		__u64 *container = bpf_map_lookup_elem(&containers, &id);

		if (container)
			return *container;
	}
	return 0;
}

/*
 * The container of a task: that of its cgroup or of the nearest one above. 0 is none. Above the
 * topmost there is nothing, and that is asked for: to follow a plain pointer to nowhere costs an
 * exception, and before 6.5 in a program of several functions it may cost the kernel.
 */
static __always_inline __u64 container_of_task(struct task_struct *task)
{
	struct cgroup *own = cgroup_of(task), *cgroup = own;

	for (int level = 0; level < CGROUP_LEVELS_MAX && cgroup; level++) {
		__u64 id = READ(cgroup, kn, id);
		__u64 *container = bpf_map_lookup_elem(&containers, &id);
		struct cgroup_subsys_state *above;

		if (container)
			return *container;
		above = READ(cgroup, self.parent);
		if (!above)
			return 0;
		cgroup = READ(above, cgroup);
	}
	return own ? container_near_root(own) : 0;
}

char LICENSE[] SEC("license") = "GPL";

#endif

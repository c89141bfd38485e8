/* SPDX-License-Identifier: GPL-2.0 */
/* What the run-queue programs remember: of each CPU, cgroup and task, and the sums that they make. */
#ifndef ONSET_WAITS_H
#define ONSET_WAITS_H

#include "common.h"
#include "lost.h"

/* Slices that a CPU remembers, and how many of them one look back passes. */
#define SLICES	   128
#define SLICES_MAX 120

/* Times throttled that are remembered of a cgroup on a CPU. */
#define PAUSES 4

/* include/linux/sched.h: a queued task on its way to another CPU. */
#define TASK_ON_RQ_MIGRATING 2

/*
 * A group is what is told apart: a container, as `containers` has it, with all cgroups below its
 * own; else a cgroup, by its id. 0 is nobody.
 */
struct account {
	__u64 ran;
	__u64 waited;
	/* Of which: while the own group ran, while others did, throttled, while nobody ran. */
	__u64 inner;
	__u64 external;
	__u64 throttled;
	__u64 unheld;
	__u64 waits;
};

struct pair {
	__u64 victim;
	__u64 interferer;
};

struct slice {
	__u64 from;
	__u64 until;
	__u64 group;
};

/* What one look back at a CPU's slices is about. */
struct look {
	__u64 group;
	/* Given where it was throttled. */
	__u64 cgroup;
	__u64 from;
	__u64 now;
	/* What was found so far. */
	__u64 inner;
	__u64 external;
};

struct cpu {
	/* Its first switch in this run: what was before is not known. */
	__u64 began;
	/* The task that it was given last, and since when; 0 is the idle task. */
	__u64 pid;
	__u64 since;
	/* Which group that is of, and its cgroup's own id. */
	__u64 group;
	__u64 cgroup;
	__u64 head;
	/* Sums of this group that are not in its account yet: that takes a lookup, and one group often
	 * follows itself. */
	__u64 sums_of;
	struct account sums;
	/* By how much its clock lags behind the system's, at least; known once it was looked at. */
	__s64 lag;
	__u64 looked;
	/* Whoever looks back holds the lock of this CPU's run queue, so there is one at a time. */
	struct look look;
	struct slice slices[SLICES];
};

struct pause {
	__u64 from;
	__u64 until;
};

/* How a cgroup was throttled on a CPU. */
struct throttle {
	/* Since when it is. 0: it is not. */
	__u64 since;
	/* All time throttled, as the kernel had it last. */
	__u64 total;
	__u64 head;
	struct pause pauses[PAUSES];
};

/* What is remembered of a task. */
struct memory {
	/* The run that this is of. */
	__u64 run;
	/* Its cgroup's own id, and the group that this is of. */
	__u64 cgroup;
	__u64 group;
	/* All that it has waited, as the kernel counts it. */
	__u64 run_delay;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct cpu);
} cpus SEC(".maps");

/* Sizes of what each CPU has for itself: they are multiplied by their number. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 2048);
	__type(key, __u64);
	__type(value, struct account);
} accounts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct pair);
	__type(value, __u64);
} interferers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, struct throttle);
} throttles SEC(".maps");

/* One of these two is made; which, `in_tasks` says. */
struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct memory);
} memories SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, struct memory);
} memories_by_pid SEC(".maps");

/* New for each run, so that what is remembered of an earlier one is not taken for this one's. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} current_run SEC(".maps");

#endif

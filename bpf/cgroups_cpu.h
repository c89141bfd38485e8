/* SPDX-License-Identifier: GPL-2.0 */
/* CPU time, throttling, quota and CPUs of a cgroup. */
#ifndef ONSET_CGROUPS_CPU_H
#define ONSET_CGROUPS_CPU_H

#include "cgroups.h"

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

#endif

// SPDX-License-Identifier: GPL-2.0
/*
 * Who waits for a CPU, for how long, and who holds it meanwhile. Each CPU remembers the slices of
 * time that ran on it last; a task that gets a CPU looks back over those since it was queued. The
 * kernel itself notes when that was, so nothing is hooked but switches, and moves of waiting tasks.
 */
#define TYPED_POINTERS
#include "waits.h"
#include <bpf/bpf_tracing.h>

/*
 * Whether tasks themselves carry their memories. Before 6.4 the kernel allocates those with the
 * run queue's lock held in a way that may wake its reclaim thread, which needs that lock.
 */
const volatile bool in_tasks = false;

/* A wait shorter than this is not looked into: there are many, and together they are little. */
const volatile __u64 least_ns = 200000;

#include "waits_slices.h"

/*
 * When a task that was not seen to get its CPU got it. Of the idle task the kernel (6.13 and later) notes
 * it on the clock that leaves out what a hypervisor took.
 */
static __always_inline __u64 came(struct task_struct *task, struct rq *rq)
{
	if (task->pid)
		return task->sched_info.last_arrival;
	return task->se.exec_start ? task->se.exec_start + (rq->clock - rq->clock_task) : 0;
}

/*
 * The kernel does not tell of each switch: then what leaves the CPU is not what was given it last. What
 * ran before it ends when it came. Where that is not known, nobody is said to have run.
 */
static __always_inline void make_good(struct cpu *cpu, struct task_struct *prev, struct rq *rq)
{
	__u64 since = came(prev, rq), now = rq->clock;
	struct memory *memory;

	if (cpu->pid == prev->pid)
		return;
	if (!since || since > now) {
		count_lost();
		cpu->since = now;
	} else {
		close_slice(cpu, since);
	}
	cpu->group = 0;
	memory = prev->pid ? memory_of(prev, true) : NULL;
	if (!memory)
		return;
	refresh(memory, prev);
	cpu->group = memory->group;
	cpu->cgroup = memory->cgroup;
}

static __always_inline int take_switch(struct task_struct *prev, struct task_struct *next)
{
	struct cfs_rq *queue = next->se.cfs_rq;
	__u64 now = queue->rq->clock, queued = next->sched_info.last_queued;
	__u32 number = bpf_get_smp_processor_id();
	struct cpu *cpu = bpf_map_lookup_elem(&cpus, &number);
	struct memory *memory;

	if (!cpu)
		return 0;
	if (cpu->began)
		make_good(cpu, prev, queue->rq);
	else
		cpu->began = now;
	cpu->pid = next->pid;
	close_slice(cpu, now);
	if (cpu->group)
		note_throttle(prev->se.cfs_rq, cpu->cgroup, now);
	cpu->group = 0;
	/* The idle tasks are process 0. */
	if (!next->pid)
		return 0;
	memory = memory_of(next, true);
	if (!memory) {
		count_lost();
		return 0;
	}
	refresh(memory, next);
	cpu->group = memory->group;
	cpu->cgroup = memory->cgroup;
	memory->run_delay = next->sched_info.run_delay;
	if (!queued || queued >= now)
		return 0;
	/* The kernel adds it right after this. */
	memory->run_delay += now - queued;
	if (queued < cpu->began)
		queued = cpu->began;
	if (queued < now)
		charge(cpu, number, memory, queued, now, queue);
	return 0;
}

/* A task that waits is moved: its wait for the old CPU ends, and is in its sum already. */
static __always_inline int take_move(struct task_struct *task)
{
	struct rq *rq = task->se.cfs_rq->rq;
	__u64 now = rq->clock, delay = task->sched_info.run_delay, waited;
	__u32 number = rq->cpu;
	struct memory *memory;
	struct cpu *cpu;

	/* Of four bytes, or of one: as 7.1 and later have it. */
	if (BPF_CORE_READ_BITFIELD(task, on_rq) != TASK_ON_RQ_MIGRATING)
		return 0;
	memory = memory_of(task, true);
	if (!memory)
		return 0;
	waited = refresh(memory, task) && delay > memory->run_delay ? delay - memory->run_delay : 0;
	memory->run_delay = delay;
	cpu = bpf_map_lookup_elem(&cpus, &number);
	if (!cpu || !cpu->began || !waited)
		return 0;
	/* Whoever moves it holds the old CPU's lock, so its slices are ours to change. */
	close_slice(cpu, now);
	if (waited > now - cpu->began)
		waited = now - cpu->began;
	charge(cpu, number, memory, now - waited, now, NULL);
	return 0;
}

/*
 * The cgroup of what runs here, and its group. They are read without types: those of the running task
 * the verifier knows only from 5.11 on.
 */
static __always_inline void place_current(struct cpu *cpu, struct task_struct *task)
{
	__u64 index = bpf_core_enum_value(enum cgroup_subsys_id, cpu_cgrp_id);
	struct css_set *set = BPF_CORE_READ(task, cgroups);
	struct cgroup_subsys_state *css = NULL;
	struct cgroup *own, *cgroup;
	__u64 near_root;

	bpf_probe_read_kernel(&css, sizeof(css), (void *)&set->subsys + index * sizeof(css));
	own = cgroup = unified ? BPF_CORE_READ(set, dfl_cgrp) : BPF_CORE_READ(css, cgroup);
	cpu->cgroup = BPF_CORE_READ(own, kn, id);
	cpu->group = cpu->cgroup;
	for (int level = 0; level < CGROUP_LEVELS_MAX && cgroup; level++) {
		__u64 id = BPF_CORE_READ(cgroup, kn, id);
		__u64 *container = bpf_map_lookup_elem(&containers, &id);

		if (container) {
			cpu->group = *container;
			return;
		}
		css = BPF_CORE_READ(cgroup, self.parent);
		if (!css)
			return;
		cgroup = BPF_CORE_READ(css, cgroup);
	}
	near_root = container_near_root(own);
	if (near_root)
		cpu->group = near_root;
}

/*
 * What this CPU's clock would say if it were brought up to date. That happens when it switches and at its
 * ticks, and a CPU that is spared those (nohz_full) has one a second. The clock lags behind that of the
 * system by as much at all times; what it lags more is its age.
 */
static __always_inline __u64 up_to_date(struct cpu *cpu, __u64 clock, __u64 since_boot)
{
	__s64 lag = since_boot - clock;

	if (!cpu->looked || lag < cpu->lag)
		cpu->lag = lag;
	cpu->looked = true;
	return clock + (lag - cpu->lag);
}

/*
 * What runs at this moment, if it has not been switched to in this run, or for as long as it has
 * not been switched from: userspace has this run on each CPU when it reads the sums.
 */
static __always_inline void take_current(__u64 since_boot)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	__u64 clock = BPF_CORE_READ(task, se.cfs_rq, rq, clock), now, since;
	__u32 pid = BPF_CORE_READ(task, pid);
	__u32 number = bpf_get_smp_processor_id();
	struct cpu *cpu = bpf_map_lookup_elem(&cpus, &number);

	if (!cpu)
		return;
	now = up_to_date(cpu, clock, since_boot);
	settle(cpu);
	if (!cpu->began || cpu->pid != pid) {
		/* As in make_good(); of an idle task it is not asked here. */
		since = pid ? BPF_CORE_READ(task, sched_info.last_arrival) : 0;
		if (cpu->began && since && since <= now) {
			close_slice(cpu, since);
		} else {
			if (cpu->began)
				count_lost();
			cpu->since = now;
		}
		cpu->group = 0;
		cpu->pid = pid;
		if (!cpu->began)
			cpu->began = now;
		if (pid)
			place_current(cpu, task);
	}
	close_slice(cpu, now);
	settle(cpu);
}

SEC("tp_btf/sched_switch")
int BPF_PROG(switched, bool preempted, struct task_struct *prev, struct task_struct *next)
{
	return take_switch(prev, next);
}

SEC("tp_btf/sched_migrate_task")
int BPF_PROG(moved, struct task_struct *task)
{
	return take_move(task);
}

/* Never attached: userspace runs it. It gives back when that was: the low 32 bits of microseconds since boot.
 */
SEC("raw_tp/sched_switch")
int look_now(void *ctx)
{
	__u64 since_boot = bpf_ktime_get_ns();

	take_current(since_boot);
	return (__u32)(since_boot / 1000);
}

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

/* All time that a cgroup was throttled on its CPU. Earlier kernels know it under other names. */
static __always_inline __u64 throttled_total(struct cfs_rq *queue)
{
	struct cfs_rq___pelt *pelt = (void *)queue;
	struct cfs_rq___task *task = (void *)queue;

	if (bpf_core_field_exists(queue->throttled_clock_self_time))
		return queue->throttled_clock_self_time;
	if (bpf_core_field_exists(pelt->throttled_clock_pelt_time))
		return BPF_CORE_READ(pelt, throttled_clock_pelt_time);
	if (bpf_core_field_exists(task->throttled_clock_task_time))
		return BPF_CORE_READ(task, throttled_clock_task_time);
	return 0;
}

static __always_inline bool is_throttled(struct cfs_rq *queue)
{
	return bpf_core_field_exists(queue->throttle_count) && queue->throttle_count;
}

/* A task of this cgroup leaves the CPU: perhaps because it is throttled. */
static __always_inline void note_throttle(struct cfs_rq *queue, __u64 cgroup, __u64 now)
{
	struct throttle fresh = {}, *throttle;
	__u64 total = throttled_total(queue);

	if (!total && !is_throttled(queue))
		return;
	fresh.total = total;
	throttle = value_of(&throttles, &cgroup, &fresh);
	if (!throttle || !is_throttled(queue))
		return;
	/*
	 * A throttled task goes on until it leaves the kernel, and may wait for the CPU once more before
	 * that: the pause begins after, as the queue then knows.
	 */
	if (bpf_core_field_exists(queue->throttled_clock_self) && queue->throttled_clock_self)
		throttle->since = queue->throttled_clock_self;
	else if (!throttle->since)
		throttle->since = now;
}

/* A task of this cgroup gets the CPU: if it was throttled, that is over, and known by now. */
static __always_inline void end_throttle(struct throttle *throttle, struct cfs_rq *queue)
{
	__u64 total = throttled_total(queue);

	if (throttle->since && total != throttle->total) {
		struct pause *pause = &throttle->pauses[throttle->head & (PAUSES - 1)];

		pause->from = throttle->since;
		pause->until = throttle->since + (total - throttle->total);
		throttle->head++;
		throttle->since = 0;
	} else if (throttle->since && !is_throttled(queue)) {
		throttle->since = 0;
	}
	throttle->total = total;
}

/* How much of [from, until] a cgroup was throttled. */
static __always_inline __u64 paused(struct throttle *throttle, __u64 from, __u64 until)
{
	__u64 sum = 0;

#pragma unroll
	for (int i = 0; i < PAUSES; i++) {
		__u64 begin = throttle->pauses[i].from, end = throttle->pauses[i].until;

		begin = begin < from ? from : begin;
		end = end > until ? until : end;
		if (end > begin)
			sum += end - begin;
	}
	return sum > until - from ? until - from : sum;
}

static __always_inline void blame(__u64 victim, __u64 culprit, __u64 time)
{
	struct pair key = {.victim = victim, .culprit = culprit};
	__u64 fresh = 0, *held = value_of(&culprits, &key, &fresh);

	if (held)
		*held += time;
}

/* Ends the slice of what runs on this CPU. */
static __always_inline void close_slice(struct cpu *cpu, __u64 now)
{
	__u64 since = cpu->since, group = cpu->group;
	struct slice *last = &cpu->slices[(cpu->head - 1) & (SLICES - 1)];

	/* A clock that was read elsewhere may be a little ahead. */
	if (now <= since)
		return;
	cpu->since = now;
	if (!group)
		return;
	account_of(cpu, group)->ran += now - since;
	if (last->group == group && last->until == since) {
		last->until = now;
		return;
	}
	last = &cpu->slices[cpu->head & (SLICES - 1)];
	last->from = since;
	last->until = now;
	last->group = group;
	cpu->head++;
}

/*
 * Takes one slice into the look that is under way. True: it was before all that is looked at. A
 * function of its own, with plain numbers: so the verifier takes it once, not at each step.
 */
__noinline int take_slice(__u32 number, __u64 at)
{
	struct cpu *cpu = bpf_map_lookup_elem(&cpus, &number);
	struct throttle *throttle = NULL;
	struct slice *slice;
	__u64 begin, end, held, cgroup;

	if (!cpu)
		return true;
	slice = &cpu->slices[at & (SLICES - 1)];
	begin = slice->from;
	end = slice->until;
	if (end <= cpu->look.from)
		return true;
	end = end > cpu->look.now ? cpu->look.now : end;
	begin = begin < cpu->look.from ? cpu->look.from : begin;
	if (end <= begin)
		return false;
	held = end - begin;
	cgroup = cpu->look.cgroup;
	if (cgroup)
		throttle = bpf_map_lookup_elem(&throttles, &cgroup);
	if (throttle)
		held -= paused(throttle, begin, end);
	if (slice->group == cpu->look.group) {
		cpu->look.inner += held;
	} else if (held) {
		cpu->look.external += held;
		blame(cpu->look.group, slice->group, held);
	}
	return false;
}

/* Shares a wait out among those who held its CPU meanwhile. */
static __always_inline void look_back(struct cpu *cpu, __u32 number, struct account *account, __u64 throttled)
{
	__u64 waited = cpu->look.now - cpu->look.from, known;
	int i;

	for (i = 0; i < SLICES_MAX; i++)
		if (take_slice(number, cpu->head - 1 - i))
			break;
	account->inner += cpu->look.inner;
	account->external += cpu->look.external;
	known = cpu->look.inner + cpu->look.external + throttled;
	/* Of a longer past than is remembered nobody can say whether the CPU was held. */
	if (i < SLICES_MAX && waited > known)
		account->unheld += waited - known;
}

/* A task waited for a CPU. `queue` is given where it may have been throttled. */
static __always_inline void charge(struct cpu *cpu, __u32 number, struct memory *memory, __u64 from,
				   __u64 now, struct cfs_rq *queue)
{
	__u64 cgroup = memory->cgroup, group = memory->group, throttled = 0;
	struct account *account = account_of(cpu, group);
	struct throttle *throttle = NULL;

	account->waited += now - from;
	account->waits++;
	if (queue && (is_throttled(queue) || throttled_total(queue)))
		throttle = bpf_map_lookup_elem(&throttles, &cgroup);
	if (throttle) {
		end_throttle(throttle, queue);
		throttled = paused(throttle, from, now);
		account->throttled += throttled;
	}
	if (now - from < least_ns)
		return;
	cpu->look.group = group;
	cpu->look.cgroup = throttle ? cgroup : 0;
	cpu->look.from = from;
	cpu->look.now = now;
	cpu->look.inner = 0;
	cpu->look.external = 0;
	look_back(cpu, number, account, throttled);
}

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

/* SPDX-License-Identifier: GPL-2.0 */
/* The slices of time that ran on a CPU, and the wait of a task shared out among them. `least_ns` is declared
 * before. */
#ifndef ONSET_WAITS_SLICES_H
#define ONSET_WAITS_SLICES_H

#include "waits_throttle.h"

static __always_inline void blame(__u64 victim, __u64 interferer, __u64 time)
{
	struct pair key = {.victim = victim, .interferer = interferer};
	__u64 fresh = 0, *held = value_of(&interferers, &key, &fresh);

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

#endif

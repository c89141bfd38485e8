/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Sampled stacks: what the programs that take them have in common. A stack is sent through the ring
 * once, when it is new; after that its weight is only added up, by container, process and hash.
 */
#ifndef ONSET_SAMPLED_H
#define ONSET_SAMPLED_H

#include "layout.h"
#include "lost.h"

#define USER_FRAMES_MAX	  127
#define KERNEL_FRAMES_MAX 127
#define USER_BYTES	  (USER_FRAMES_MAX * 32) /* struct bpf_stack_build_id */
#define KERNEL_BYTES	  (KERNEL_FRAMES_MAX * 8)
#define WORDS_MAX	  ((USER_BYTES + KERNEL_BYTES) / 8)

/* Which part of a stack a program is after. */
enum wanted_stacks {
	USER_ONLY,
	KERNEL_AND_USER,
};

/* What userspace steers by. Times are the monotonic clock's. */
struct control {
	/*
	 * When the next turn is due. The lowest bit says which of the two maps counts until then; from
	 * then on the other one does, even if userspace comes late. Userspace reads the one that rests.
	 */
	__u64 turn;
	/* From this time on nothing is sampled. */
	__u64 end;
	/* New for each run, so that what was sent in an earlier one counts as new. */
	__u64 seed;
	/* Whether the whole host is sampled, else only the containers in `targets`. */
	__u32 host;
	__u32 unused;
};

/* A stack as it is sent; its kernel frames come first, then its user frames. */
struct stack {
	__u64 hash;
	/* Tells apart the programs that a process executes, and processes with the same id. */
	__u64 image;
	struct layout layout;
	__u32 tgid;
	__u16 kernel_bytes;
	__u16 user_bytes;
	char comm[16];
	/* Whether it is about to execute another program: its name may be the next one's already. */
	__u32 execs;
	__u32 unused;
	__u64 words[WORDS_MAX];
};

struct counted {
	__u64 container;
	__u64 hash;
	__u64 tgid;
};

/* How much, and when it was last added to. */
struct sum {
	__u64 weight;
	__u64 last;
};

struct sent {
	__u64 hash;
	__u64 tgid;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct control);
} control SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u64);
	__type(value, __u64);
} targets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct stack);
} scratch SEC(".maps");

/* Sizes of what grows with the number of CPUs are set at load. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 512 * 1024);
} frames SEC(".maps");
RECORD_OF(frames, stack);

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct sent);
	__type(value, __u8);
} known SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct counted);
	__type(value, struct sum);
} counts_even SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct counted);
	__type(value, struct sum);
} counts_odd SEC(".maps");

/* Samples that found no room, by the map that was to count them. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} lost_in_turn SEC(".maps");

static __always_inline bool is_wanted(struct control *now, __u64 container)
{
	return now->host || (container && bpf_map_lookup_elem(&targets, &container));
}

/*
 * The wanted stacks into `stack`, one after the other. The number of words they take. A task that
 * executes another program still has the registers of the one before, and soon the memory of the
 * next: its user stack would be read from both.
 */
static __always_inline __u32 read_stacks(void *ctx, struct stack *stack, enum wanted_stacks wanted)
{
	const __u64 user_flags = BPF_F_USER_STACK | BPF_F_USER_BUILD_ID;
	long kernel = 0, user = 0;

	if (wanted == KERNEL_AND_USER)
		kernel = bpf_get_stack(ctx, stack->words, KERNEL_BYTES, 0);
	if (kernel < 0 || kernel > KERNEL_BYTES)
		kernel = 0;
	if (!stack->execs)
		user = bpf_get_stack(ctx, (void *)stack->words + kernel, USER_BYTES, user_flags);
	if (user < 0 || user > USER_BYTES)
		user = 0;
	stack->kernel_bytes = kernel;
	stack->user_bytes = user;
	return (__u32)(kernel + user) / 8;
}

/* Multiply and fold: the product's high half reaches the low bits of the next round. */
static __always_inline __u64 mix(__u64 hash, __u64 word)
{
	hash = (hash ^ word) * 0x9e3779b97f4a7c15ULL;
	return hash ^ (hash >> 32);
}

/* Whose stack it is, and what that process is called: its name is its main thread's. */
static __always_inline void read_owner(struct stack *stack, struct task_struct *task, __u32 tgid)
{
	struct task_struct *leader = BPF_CORE_READ(task, group_leader);

	stack->tgid = tgid;
	stack->image = mix(BPF_CORE_READ(leader, start_time), BPF_CORE_READ(task, self_exec_id));
	if (bpf_core_field_exists(task->in_execve))
		stack->execs = BPF_CORE_READ_BITFIELD_PROBED(task, in_execve);
	else
		stack->execs = !!BPF_CORE_READ(task, fs, in_exec);
	BPF_CORE_READ_INTO(&stack->comm, leader, comm);
}

/* The hash of all that is sent but the layout, which an image keeps. */
static __always_inline __u64 hash_of(struct stack *stack, __u32 words, __u64 seed)
{
	__u64 *comm = (void *)stack->comm;
	__u64 hash = mix(seed, ((__u64)stack->kernel_bytes << 16) | stack->user_bytes);

	hash = mix(mix(mix(mix(hash, stack->image), comm[0]), comm[1]), stack->execs);
#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < WORDS_MAX; i++) {
		if (i >= words)
			break;
		hash = mix(hash, stack->words[i]);
	}
	return hash;
}

/* Sends a stack unless it was. False: the ring is full. */
static __always_inline bool send(struct stack *stack, struct task_struct *task)
{
	struct sent key = {.hash = stack->hash, .tgid = stack->tgid};
	__u64 size = __builtin_offsetof(struct stack, words);
	__u8 yes = 1;

	if (bpf_map_lookup_elem(&known, &key))
		return true;
	read_layout(&stack->layout, task);
	size += stack->kernel_bytes + stack->user_bytes;
	if (size > sizeof(*stack) || bpf_ringbuf_output(&frames, stack, size, BPF_RB_NO_WAKEUP))
		return false;
	/* Should this fail, it is sent again: userspace knows what it has. */
	bpf_map_update_elem(&known, &key, &yes, BPF_ANY);
	return true;
}

/* Adds to a sum. False: there is no room for it. */
static __always_inline bool count_in(void *counts, struct counted *key, __u64 weight, __u64 time)
{
	struct sum first = {.weight = weight, .last = time}, *sum = bpf_map_lookup_elem(counts, key);

	if (!sum) {
		if (!bpf_map_update_elem(counts, key, &first, BPF_NOEXIST))
			return true;
		/* Another CPU may have been faster. */
		sum = bpf_map_lookup_elem(counts, key);
		if (!sum)
			return false;
	}
	__sync_fetch_and_add(&sum->weight, weight);
	sum->last = time;
	return true;
}

static __always_inline void count_lost_in(__u32 side)
{
	__u64 *count = bpf_map_lookup_elem(&lost_in_turn, &side);

	count_lost();
	if (count)
		__sync_fetch_and_add(count, 1);
}

/* Which map counts at this time. */
static __always_inline __u32 side_at(struct control *now, __u64 time)
{
	__u64 turn = now->turn;
	__u32 side = turn & 1;

	return time < turn ? side : !side;
}

/*
 * Takes the stack of the current task, and counts it with this weight. One that cannot be sent yet is
 * counted all the same: its frames may come with its next sample.
 */
static __always_inline int take_sample(void *ctx, enum wanted_stacks wanted, __u64 weight)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	__u32 tgid = bpf_get_current_pid_tgid() >> 32, zero = 0, words, side;
	struct control *now = bpf_map_lookup_elem(&control, &zero);
	struct stack *stack = bpf_map_lookup_elem(&scratch, &zero);
	__u64 time = bpf_ktime_get_ns();
	struct counted key = {};

	/* The idle tasks are process 0. */
	if (!now || !stack || !tgid || time >= now->end)
		return 0;
	key.container = container_of_task(task);
	if (!is_wanted(now, key.container))
		return 0;
	read_owner(stack, task, tgid);
	words = read_stacks(ctx, stack, wanted);
	stack->hash = hash_of(stack, words, now->seed);
	key.hash = stack->hash;
	key.tgid = tgid;
	send(stack, task);
	side = side_at(now, time);
	if (!(side ? count_in(&counts_odd, &key, weight, time) : count_in(&counts_even, &key, weight, time)))
		count_lost_in(side);
	return 0;
}

#endif

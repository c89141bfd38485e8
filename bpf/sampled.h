/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Sampled stacks: what the programs that take them have in common. A stack is sent through the ring
 * once, when it is new; after that its weight is only added up, by container, process and hash.
 */
#ifndef ONSET_SAMPLED_H
#define ONSET_SAMPLED_H

#include "common.h"
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

/* What userspace steers by. */
struct control {
	/* Which of the two maps counts now: userspace reads the other one. */
	__u32 side;
	/* Whether the whole host is sampled, else only the containers in `targets`. */
	__u32 host;
	/* New for each run, so that what was sent in an earlier one counts as new. */
	__u64 seed;
};

/* A stack as it is sent; its kernel frames come first, then its user frames. */
struct stack {
	__u64 hash;
	__u32 tgid;
	__u16 kernel_bytes;
	__u16 user_bytes;
	char comm[16];
	__u64 words[WORDS_MAX];
};

struct counted {
	__u64 container;
	__u64 hash;
	__u64 tgid;
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
	__type(value, __u64);
} counts_even SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct counted);
	__type(value, __u64);
} counts_odd SEC(".maps");

static __always_inline bool is_wanted(struct control *now, __u64 container)
{
	return now->host || (container && bpf_map_lookup_elem(&targets, &container));
}

/* The wanted stacks into `stack`, one after the other. The number of words they take. */
static __always_inline __u32 read_stacks(void *ctx, struct stack *stack, enum wanted_stacks wanted)
{
	const __u64 user_flags = BPF_F_USER_STACK | BPF_F_USER_BUILD_ID;
	long kernel = 0, user;

	if (wanted == KERNEL_AND_USER)
		kernel = bpf_get_stack(ctx, stack->words, KERNEL_BYTES, 0);
	if (kernel < 0 || kernel > KERNEL_BYTES)
		kernel = 0;
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

static __always_inline __u64 hash_of(struct stack *stack, __u32 words, __u64 seed)
{
	__u64 hash = mix(seed, ((__u64)stack->kernel_bytes << 16) | stack->user_bytes);

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
	struct task_struct *leader;
	__u8 yes = 1;

	if (bpf_map_lookup_elem(&known, &key))
		return true;
	leader = BPF_CORE_READ(task, group_leader);
	BPF_CORE_READ_INTO(&stack->comm, leader, comm);
	size += stack->kernel_bytes + stack->user_bytes;
	if (size > sizeof(*stack) || bpf_ringbuf_output(&frames, stack, size, BPF_RB_NO_WAKEUP))
		return false;
	/* Should this fail, it is sent again: userspace knows what it has. */
	bpf_map_update_elem(&known, &key, &yes, BPF_ANY);
	return true;
}

/* Counts so much more. False: there is no room. */
static __always_inline bool count_in(void *counts, struct counted *key, __u64 weight)
{
	__u64 *sum = bpf_map_lookup_elem(counts, key);

	if (!sum) {
		if (!bpf_map_update_elem(counts, key, &weight, BPF_NOEXIST))
			return true;
		/* Another CPU may have been faster. */
		sum = bpf_map_lookup_elem(counts, key);
		if (!sum)
			return false;
	}
	__sync_fetch_and_add(sum, weight);
	return true;
}

/* Takes the stack of the current task, and counts it with this weight. */
static __always_inline int take_sample(void *ctx, enum wanted_stacks wanted, __u64 weight)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	__u32 tgid = bpf_get_current_pid_tgid() >> 32, zero = 0, words;
	struct control *now = bpf_map_lookup_elem(&control, &zero);
	struct stack *stack = bpf_map_lookup_elem(&scratch, &zero);
	struct counted key = {};

	/* The idle tasks are process 0. */
	if (!now || !stack || !tgid)
		return 0;
	key.container = container_of_task(task);
	if (!is_wanted(now, key.container))
		return 0;
	words = read_stacks(ctx, stack, wanted);
	stack->tgid = tgid;
	stack->hash = hash_of(stack, words, now->seed);
	key.hash = stack->hash;
	key.tgid = tgid;
	if (!send(stack, task) ||
	    !(now->side ? count_in(&counts_odd, &key, weight) : count_in(&counts_even, &key, weight)))
		count_lost();
	return 0;
}

#endif

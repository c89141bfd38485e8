// SPDX-License-Identifier: GPL-2.0
/*
 * OOM kills, as they happen: who is killed, who asked for the memory that was not there, and the
 * cgroup that had least room left on the way from the victim's to the root. The kernel also marks
 * victims that were dying before: those that it kills it has sent SIGKILL itself, just before.
 */
#include "common.h"
#include "lost.h"

/* include/linux/limits.h: a name with its zero, and a path. */
#define NAME_BYTES 256
#define PATH_BYTES 4096

/* Cgroups from the victim's up; what is above them is told to be missing. */
#define LEVELS_MAX 256

/* include/uapi/asm-generic/signal.h, and include/linux/sched/signal.h: sent by the kernel itself. */
#define SIGKILL	      9
#define SEND_SIG_PRIV 1

#define NO_LIMIT (~0ULL)

/* include/uapi/asm-generic/errno-base.h */
#define EEXIST 17

/* include/linux/page_counter.h: so many bytes are no limit. */
#define UNLIMITED_BYTES 0x7fffffffffffffffULL

const volatile __u32 page_bytes = 4096;

/* As it is sent: the names follow from the cgroup up, each with its zero, `names_bytes` long. */
struct kill {
	__u64 victim_container;
	__u64 trigger_container;
	__u64 usage_bytes;
	__u64 limit_bytes;
	__u32 victim_pid;
	__u32 trigger_pid;
	char victim_comm[16];
	char trigger_comm[16];
	/* 0 is not known. */
	__u64 victim_rss_bytes;
	__u32 names_bytes;
	/* Whether names above are missing. */
	__u32 cut;
	char names[PATH_BYTES + NAME_BYTES];
};

/* A record that is being made, and how far the way up to the root was walked for it. */
struct draft {
	struct kill kill;
	struct cgroup_subsys_state *next;
	struct cgroup_subsys_state *tightest;
	__u64 least_pages;
};

/* A process that is marked: each of its threads may be. */
struct marked {
	__u64 started;
	__u64 tgid;
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 128 * 1024);
} events SEC(".maps");
RECORD_OF(events, kill);

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct marked);
	__type(value, __u8);
} told SEC(".maps");

/*
 * Whom SIGKILL was sent: where its task lies, and what tells it from one that lies there later. The
 * kernel also sends it to others that share a victim's memory, and marks none of them.
 */
struct signalled {
	__u64 task;
	__u64 pid;
	__u64 started;
};

/* By thread that sends it: whom the kernel sent SIGKILL last. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, struct signalled);
} sent SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct draft);
} scratch SEC(".maps");

static __always_inline struct cgroup_subsys_state *memory_of(struct task_struct *task)
{
	__u64 index = bpf_core_enum_value(enum cgroup_subsys_id, memory_cgrp_id);
	struct css_set *set = BPF_CORE_READ(task, cgroups);
	struct cgroup_subsys_state *css = NULL;

	bpf_probe_read_kernel(&css, sizeof(css), (void *)&set->subsys + index * sizeof(css));
	return css;
}

/* The first field of a memcg is its css. */
static __always_inline struct mem_cgroup *memcg_of(struct cgroup_subsys_state *css)
{
	return (void *)css - bpf_core_field_offset(((struct mem_cgroup *)0)->css);
}

/*
 * Compares one cgroup on the way up, in `scratch`, with the tightest below it. It has no state of its
 * caller's, so the verifier goes through it once, and not for each level. 0: there is none above.
 */
__noinline int weigh(void)
{
	struct cgroup_subsys_state *css;
	__u64 usage, max, room;
	struct draft *draft;
	__u32 zero = 0;

	draft = bpf_map_lookup_elem(&scratch, &zero);
	if (!draft || !draft->next)
		return 0;
	css = draft->next;
	usage = BPF_CORE_READ(memcg_of(css), memory.usage.counter);
	max = BPF_CORE_READ(memcg_of(css), memory.max);
	room = usage < max ? max - usage : 0;
	if (max < UNLIMITED_BYTES / page_bytes && room < draft->least_pages) {
		draft->least_pages = room;
		draft->tightest = css;
		draft->kill.usage_bytes = usage * page_bytes;
		draft->kill.limit_bytes = max * page_bytes;
	}
	draft->next = BPF_CORE_READ(css, parent);
	return draft->next != NULL;
}

/* Finds the cgroup with least room below its limit, from here up; this one if none has a limit. */
static __always_inline void find_tightest(struct cgroup_subsys_state *css, struct draft *draft)
{
	draft->kill.limit_bytes = NO_LIMIT;
	draft->kill.usage_bytes = (__u64)BPF_CORE_READ(memcg_of(css), memory.usage.counter) * page_bytes;
	draft->least_pages = NO_LIMIT;
	draft->tightest = css;
	draft->next = css;
#pragma clang loop unroll(disable)
	for (int level = 0; level < LEVELS_MAX; level++)
		if (!weigh())
			break;
}

/* Reads the name of one cgroup on the way up, in `scratch`. Apart as `weigh` is. 0: it was the last. */
__noinline int read_name(void)
{
	struct cgroup_subsys_state *css, *parent;
	struct draft *draft;
	__u32 at, zero = 0;
	long bytes;

	draft = bpf_map_lookup_elem(&scratch, &zero);
	if (!draft)
		return 0;
	css = draft->next;
	parent = BPF_CORE_READ(css, parent);
	/* The root's name is left out. */
	draft->kill.cut = parent != NULL;
	at = draft->kill.names_bytes;
	if (!parent || at >= PATH_BYTES)
		return 0;
	bytes = bpf_probe_read_kernel_str(draft->kill.names + at, NAME_BYTES,
					  BPF_CORE_READ(css, cgroup, kn, name));
	if (bytes <= 0)
		return 0;
	draft->kill.names_bytes = at + bytes;
	draft->next = parent;
	return 1;
}

/* The names of the tightest cgroup and of those above it. */
static __always_inline void read_path(struct draft *draft)
{
	draft->kill.names_bytes = 0;
	draft->kill.cut = 1;
	draft->next = draft->tightest;
#pragma clang loop unroll(disable)
	for (int level = 0; level < LEVELS_MAX; level++)
		if (!read_name())
			break;
}

/* Whether this process was told of before. */
static __always_inline bool is_told(struct task_struct *leader, __u32 tgid)
{
	struct marked key = {.started = BPF_CORE_READ(leader, start_time), .tgid = tgid};
	__u8 yes = 1;

	return bpf_map_update_elem(&told, &key, &yes, BPF_NOEXIST) == -EEXIST;
}

/* Pages of one kind, 0 where a CPU has not added up yet. CO-RE wants the kind as a literal. */
#define PAGES_OF(mm, kind)                                                                                   \
	({                                                                                                   \
		struct mm_struct___old *old = (void *)(mm);                                                  \
		__s64 pages = bpf_core_type_exists(struct mm_rss_stat)                                       \
				      ? BPF_CORE_READ(old, rss_stat.count[kind].counter)                     \
				      : BPF_CORE_READ(mm, rss_stat[kind].count);                             \
		pages > 0 ? (__u64)pages : 0;                                                                \
	})

static __always_inline __u64 resident_bytes(struct task_struct *task)
{
	struct mm_struct *mm = BPF_CORE_READ(task, mm);

	if (!mm)
		return 0;
	/* Of files, anonymous, shared. */
	return (PAGES_OF(mm, 0) + PAGES_OF(mm, 1) + PAGES_OF(mm, 3)) * page_bytes;
}

/* The container of the task at this address. Apart as `weigh` is. */
__noinline __u64 container_at(__u64 task)
{
	return container_of_task((void *)task);
}

static __always_inline void read_victim(struct task_struct *victim, struct kill *kill)
{
	struct task_struct *leader = BPF_CORE_READ(victim, group_leader);

	kill->victim_pid = BPF_CORE_READ(victim, tgid);
	BPF_CORE_READ_INTO(&kill->victim_comm, leader, comm);
	kill->victim_container = container_at((__u64)victim);
	kill->victim_rss_bytes = resident_bytes(victim);
}

/* Whom this thread has just sent SIGKILL for the kernel. NULL: the marked one was dying before. */
static __always_inline struct task_struct *killed(__u64 marked)
{
	__u64 self = bpf_get_current_pid_tgid();
	struct signalled *found = bpf_map_lookup_elem(&sent, &self), last;
	struct task_struct *victim;

	if (!found)
		return NULL;
	last = *found;
	bpf_map_delete_elem(&sent, &self);
	victim = (void *)last.task;
	if (BPF_CORE_READ(victim, pid) != last.pid || BPF_CORE_READ(victim, start_time) != last.started)
		return NULL;
	/* Before 6.9 the kernel tells an id here. */
	if (bpf_core_field_exists(struct trace_event_raw_mark_victim, __data_loc_comm))
		return last.task == marked ? victim : NULL;
	return last.pid == marked ? victim : NULL;
}

static __always_inline int tell(__u64 marked)
{
	struct task_struct *trigger = (void *)bpf_get_current_task(), *victim = killed(marked), *leader;
	__u64 size = __builtin_offsetof(struct kill, names);
	struct draft *draft;
	struct kill *kill;
	__u32 zero = 0;

	draft = bpf_map_lookup_elem(&scratch, &zero);
	if (!draft || !victim)
		return 0;
	kill = &draft->kill;
	read_victim(victim, kill);
	if (is_told(BPF_CORE_READ(victim, group_leader), kill->victim_pid))
		return 0;
	leader = BPF_CORE_READ(trigger, group_leader);
	kill->trigger_pid = BPF_CORE_READ(trigger, tgid);
	BPF_CORE_READ_INTO(&kill->trigger_comm, leader, comm);
	kill->trigger_container = container_at((__u64)trigger);
	find_tightest(memory_of(victim), draft);
	read_path(draft);
	size += kill->names_bytes;
	if (size > sizeof(*kill) || bpf_ringbuf_output(&events, kill, size, 0))
		count_lost();
	return 0;
}

static __always_inline int note_signal(__u64 signal, __u64 info, struct task_struct *to)
{
	__u64 self = bpf_get_current_pid_tgid();
	struct signalled last = {.task = (__u64)to};

	if (signal != SIGKILL || info != SEND_SIG_PRIV)
		return 0;
	last.pid = BPF_CORE_READ(to, pid);
	last.started = BPF_CORE_READ(to, start_time);
	if (bpf_map_update_elem(&sent, &self, &last, BPF_ANY))
		count_lost();
	return 0;
}

SEC("tp_btf/signal_generate")
int signal_generate(__u64 *ctx)
{
	return note_signal(ctx[0], ctx[1], (void *)ctx[2]);
}

SEC("tp_btf/mark_victim")
int mark_victim(__u64 *ctx)
{
	return tell(ctx[0]);
}

// SPDX-License-Identifier: GPL-2.0
/* For a test of layouts: the structure of first.bpf.c after an edit. No field lies where it lay. */
#include "common.h"

struct owner {
	char comm[16];
	__u32 pid;
};

struct reading {
	__u8 type; /* a word of Rust */
	struct owner owner;
	__u32 added;
	__u16 count;
	__u64 container;
	__s32 delta;
	__u64 stack[8];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct reading);
} readings SEC(".maps");

/* As this program's compiler lays it out. */
const volatile struct reading sample = {
	.container = 0x0102030405060708,
	.delta = -5,
	.count = 515,
	.type = 7,
	.owner = {.pid = 4711, .comm = "reader"},
	.stack = {0xffffffff81000000, 17},
};

SEC("tp_btf/sched_switch")
int read_sample(void *context)
{
	return sample.count;
}

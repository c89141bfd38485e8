// SPDX-License-Identifier: GPL-2.0
/* For a test of layouts: a structure that is shared. In moved.bpf.c its fields lie elsewhere. */
#include "common.h"

struct owner {
	__u32 pid;
	char comm[16];
};

struct reading {
	__u64 container;
	__s32 delta;
	__u16 count;
	__u8 kind;
	struct owner owner;
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
	.kind = 7,
	.owner = {.pid = 4711, .comm = "reader"},
	.stack = {0xffffffff81000000, 17},
};

SEC("tp_btf/sched_switch")
int read_sample(void *context)
{
	return sample.count;
}

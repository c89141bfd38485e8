/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The kernel's types, as far as the programs use them. CO-RE finds each field by its name in the
 * running kernel's BTF, so a field's place and its neighbours do not matter here, and one file
 * serves all kernels from 5.10 on and all 64-bit architectures. The UAPI parts are fixed for ever.
 */
#ifndef ONSET_VMLINUX_H
#define ONSET_VMLINUX_H

typedef signed char __s8;
typedef unsigned char __u8;
typedef short __s16;
typedef unsigned short __u16;
typedef int __s32;
typedef unsigned int __u32;
typedef long long __s64;
typedef unsigned long long __u64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;
typedef _Bool bool;

enum {
	false = 0,
	true = 1,
};

/* include/uapi/linux/bpf.h */
enum {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERCPU_HASH = 5,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_LRU_HASH = 9,
	BPF_MAP_TYPE_RINGBUF = 27,
	BPF_MAP_TYPE_TASK_STORAGE = 29,

	BPF_ANY = 0,
	BPF_NOEXIST = 1,

	BPF_F_USER_STACK = 1 << 8,
	BPF_F_USER_BUILD_ID = 1 << 11,

	BPF_RB_NO_WAKEUP = 1,

	BPF_F_NO_PREALLOC = 1,
	BPF_F_MMAPABLE = 1 << 10,
	BPF_LOCAL_STORAGE_GET_F_CREATE = 1,
};

/* The context of iter/task (include/linux/bpf.h): a fixed interface, not for CO-RE. */
struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
};

struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
};

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

enum bpf_func_id {
	BPF_FUNC_get_current_task_btf = 158,
	BPF_FUNC_loop = 181,
	BPF_FUNC_map_lookup_percpu_elem = 195,
};

enum cgroup_subsys_id {
	cpuset_cgrp_id = 0,
	cpu_cgrp_id = 1,
	cpuacct_cgrp_id = 2,
	memory_cgrp_id = 4,
};

struct kernfs_node {
	__u64 id;
	const char *name;
	void *priv;
};

struct list_head {
	struct list_head *next;
	struct list_head *prev;
};

struct task_cputime {
	__u64 stime;
	__u64 utime;
	unsigned long long sum_exec_runtime;
};

struct prev_cputime {
	__u64 utime;
	__u64 stime;
};

struct cgroup_base_stat {
	struct task_cputime cputime;
};

/* The part of a cgroup's CPU time that one CPU counted. */
struct cgroup_rstat_base_cpu {
	struct cgroup_base_stat bstat;
	struct cgroup_base_stat last_bstat;
};

struct cgroup;

struct cgroup_subsys_state {
	struct cgroup *cgroup;
	struct list_head children;
	struct cgroup_subsys_state *parent;
};

struct cgroup {
	struct cgroup_subsys_state self;
	struct kernfs_node *kn;
	struct cgroup_subsys_state *subsys[1];
	struct cgroup_rstat_base_cpu *rstat_base_cpu;
	struct cgroup_base_stat bstat;
	struct prev_cputime prev_cputime;
	struct cgroup *ancestors[];
};

/* Before 6.16. */
struct cgroup_rstat_cpu {
	struct cgroup_base_stat bstat;
	struct cgroup_base_stat last_bstat;
};

struct cgroup___rstat {
	struct cgroup_rstat_cpu *rstat_cpu;
};

/* v1's counts of CPU time, of a cgroup with those below it. */
struct kernel_cpustat {
	__u64 cpustat[10];
};

struct cpuacct {
	__u64 *cpuusage;
	struct kernel_cpustat *cpustat;
};

struct cfs_bandwidth {
	long long period;
	__u64 quota;
	int nr_periods;
	int nr_throttled;
	__u64 throttled_time;
};

struct task_group {
	struct task_group *parent;
	struct cfs_bandwidth cfs_bandwidth;
};

struct cpumask {
	unsigned long bits[1];
};

struct cpuset {
	struct cpumask *effective_cpus;
};

/* Where a kernel is for few CPUs (CONFIG_CPUMASK_OFFSTACK is off). */
struct cpuset___inside {
	struct cpumask effective_cpus[1];
};

/* Before 6.1. */
struct cgroup___ids {
	__u64 ancestor_ids[1];
};

struct css_set {
	struct cgroup_subsys_state *subsys[1];
	struct cgroup *dfl_cgrp;
};

struct rq {
	__u64 clock;
	__u64 clock_task;
	int cpu;
};

struct cfs_rq {
	struct rq *rq;
	int throttle_count;
	__u64 throttled_clock_self;
	__u64 throttled_clock_self_time;
};

/* Before 6.6. */
struct cfs_rq___pelt {
	__u64 throttled_clock_pelt_time;
};

/* Before 5.19. */
struct cfs_rq___task {
	__u64 throttled_clock_task_time;
};

struct sched_entity {
	__u64 exec_start;
	__u64 sum_exec_runtime;
	__u64 prev_sum_exec_runtime;
	struct cfs_rq *cfs_rq;
};

struct sched_info {
	unsigned long long run_delay;
	unsigned long long last_arrival;
	unsigned long long last_queued;
};

typedef struct {
	long counter;
} atomic_long_t;

struct page_counter {
	atomic_long_t usage;
	unsigned long max;
	struct page_counter *parent;
};

enum node_stat_item {
	NR_ANON_MAPPED = 17,
	NR_SHMEM = 22,
};

enum memcg_stat_item {
	MEMCG_NR_STAT = 58,
};

/* Counts of pages, of a memory cgroup with those below it: folded, not folded yet, by one CPU. */
struct memcg_vmstats {
	long state[1];
	long state_pending[1];
};

struct memcg_vmstats_percpu {
	long state[1];
	long state_prev[1];
};

struct mem_cgroup {
	struct cgroup_subsys_state css;
	struct page_counter memory;
	struct memcg_vmstats *vmstats;
	struct memcg_vmstats_percpu *vmstats_percpu;
};

struct bpf_array {
	void *pptrs[1];
};

/* By kind of page: of files, anonymous, swapped out, shared. */
struct percpu_counter {
	__s64 count;
};

struct mm_struct {
	struct percpu_counter rss_stat[4];
	unsigned long start_code;
	unsigned long end_code;
	unsigned long start_stack;
};

/* Before 6.2. */
struct mm_rss_stat {
	atomic_long_t count[4];
};

struct mm_struct___old {
	struct mm_rss_stat rss_stat;
};

/* From 6.9 on; before that the tracepoint had the process id alone. */
struct trace_event_raw_mark_victim {
	__u32 __data_loc_comm;
};

struct fs_struct {
	int in_exec;
};

struct file;

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
};

struct files_struct {
	struct fdtable *fdt;
};

struct task_struct {
	unsigned int __state;
	unsigned int flags;
	int exit_state;
	int on_rq;
	int pid;
	int tgid;
	unsigned int in_iowait : 1;
	unsigned int in_execve : 1;
	struct task_struct *group_leader;
	__u64 start_time;
	__u64 self_exec_id;
	struct mm_struct *mm;
	struct fs_struct *fs;
	struct files_struct *files;
	char comm[16];
	struct sched_entity se;
	struct sched_info sched_info;
	struct css_set *cgroups;
};

/* Before 5.14. */
struct task_struct___old {
	volatile long state;
};

/* Block and file I/O. */
struct super_block;
struct inode;
struct file;

struct gendisk {
	int major;
	int first_minor;
};

struct block_device {
	struct gendisk *bd_disk;
};

struct page {
	unsigned long compound_head;
	void *mapping;
};

/* 7.1 and later. */
struct page___info {
	unsigned long compound_info;
};

/* Before 5.16, where no folio tells it. */
struct page___index {
	unsigned long index;
};

/* 5.16 and later. */
struct folio {
	void *mapping;
	unsigned long index;
	unsigned int _nr_pages;
};

/* Before 6.15. */
struct folio___older {
	unsigned int _folio_nr_pages;
};

/* Whole: its size is that of an array's element. */
struct bio_vec {
	struct page *bv_page;
	unsigned int bv_len;
	unsigned int bv_offset;
};

struct bvec_iter {
	unsigned int bi_size;
	unsigned int bi_idx;
	unsigned int bi_bvec_done;
};

struct bio {
	struct bio *bi_next;
	struct block_device *bi_bdev;
	unsigned int bi_opf;
	struct bvec_iter bi_iter;
	void *bi_end_io;
	void *bi_private;
	struct bio_vec *bi_io_vec;
};

/* 7.3 and later: the same by another name. */
struct bvec_iter___renamed {
	unsigned int bi_offset;
};

struct bio___renamed {
	struct bvec_iter___renamed bi_iter;
};

/* Before 5.12. */
struct bio___old {
	struct gendisk *bi_disk;
};

struct request_queue;

struct request {
	struct bio *bio;
};

struct kiocb {
	struct file *ki_filp;
	long long ki_pos;
};

struct iov_iter {
	unsigned long count;
};

struct iomap_dio {
	struct kiocb *iocb;
};

struct path {
	struct dentry *dentry;
};

struct file {
	struct path f_path;
	struct inode *f_inode;
};

struct qstr {
	unsigned int hash;
	const unsigned char *name;
};

struct hlist_node {
	struct hlist_node *next;
};

struct hlist_head {
	struct hlist_node *first;
};

struct hlist_bl_node {
	struct hlist_bl_node **pprev;
};

struct dentry {
	struct hlist_bl_node d_hash;
	struct dentry *d_parent;
	struct qstr d_name;
	struct super_block *d_sb;
	union {
		struct hlist_node d_alias;
	} d_u;
};

/* 7.1 and later: the union has no name. */
struct dentry___flat {
	struct hlist_node d_alias;
};

struct xarray {
	unsigned int xa_flags;
};

struct address_space {
	struct inode *host;
	struct xarray i_pages;
};

struct inode {
	struct super_block *i_sb;
	unsigned long i_ino;
	__u32 i_rdev;
	__u32 i_generation;
	struct hlist_head i_dentry;
	void *i_private;
};

typedef struct {
	__u8 b[16];
} uuid_t;

struct super_block {
	__u32 s_dev;
	unsigned long s_magic;
	struct block_device *s_bdev;
	uuid_t s_uuid;
};

#pragma clang attribute pop

#endif

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Who made which pages dirty. Of a file that was clean when the first one came, and that nobody else
 * writes to, all pages are that one's. Of any other, each page's writer is noted, as far as there is room;
 * what cannot be told is said to be unknown.
 */
#ifndef ONSET_IO_WRITERS_H
#define ONSET_IO_WRITERS_H

#include "io_pages.h"

#define CHUNK_PAGES 64
#define TRIES	    4
/* How a page's writer is noted: by a number of `owners`, or by one of these. */
#define EARLIER 0    /* not noted */
#define UNKNOWN 127  /* one of several */
#define VAGUE	0x80 /* noted with a folio of several pages: others may have written to it unseen */

/* Marks of a mapping (dirty, under writeback) lie above all of its other flags: include/linux/xarray.h. */
#define MARKS_FROM 22

/* What is known of who writes to a file. */
struct written {
	struct owner first;
	__u64 serial; /* what `chunks` has of it is found by this */
	__u64 run;
	__u8 first_number;
	__u8 shared; /* others came after the first */
	__u8 mixed;  /* there may be pages that were dirty before */
	__u8 full;   /* not all of its pages are noted */
	__u8 exact;  /* the filesystem tells of each write, also to pages that are dirty */
	__u8 pad[3];
};

struct chunk_key {
	__u64 serial;
	__u64 chunk;
};

struct chunk {
	__u8 pages[CHUNK_PAGES];
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct file_id);
	__type(value, struct written);
} dirtiers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, struct chunk_key);
	__type(value, struct chunk);
} chunks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, UNKNOWN);
	__type(key, __u32);
	__type(value, struct owner);
} owners SEC(".maps");

/* The number that a process is noted by. Unrolled: 5.10 takes no loop that is entered behind a call. */
static __noinline __u32 enlist(struct owner *owner)
{
#pragma clang loop unroll(full)
	for (int try = 0; try < TRIES; try++) {
		__u32 number = 1 + (owner->tgid + try) % (UNKNOWN - 1);
		struct owner *there = bpf_map_lookup_elem(&owners, &number);

		if (!there) {
			bpf_map_update_elem(&owners, &number, owner, BPF_NOEXIST);
			there = bpf_map_lookup_elem(&owners, &number);
		}
		if (there && there->tgid == owner->tgid && there->started == owner->started)
			return number;
	}
	return UNKNOWN;
}

/* That of this process, which most often has one. */
static __always_inline __u32 own_number(void)
{
	__u32 tgid = bpf_get_current_pid_tgid() >> 32, number = 1 + tgid % (UNKNOWN - 1);
	struct owner *there = bpf_map_lookup_elem(&owners, &number), owner = {};

	if (there && is_own(there))
		return number;
	own(&owner);
	return enlist(&owner);
}

/*
 * Notes who wrote pages of one chunk, from the page at `index` on. Not 0: there is no room to note it. Apart,
 * so that the verifier need not follow it for each chunk of a folio.
 */
__noinline int note_in_chunk(__u64 serial, __u64 index, __u32 count, __u32 number)
{
	struct chunk_key key = {.serial = serial, .chunk = index / CHUNK_PAGES};
	struct chunk *chunk = bpf_map_lookup_elem(&chunks, &key), none = {};

	if (!chunk) {
		bpf_map_update_elem(&chunks, &key, &none, BPF_NOEXIST);
		chunk = bpf_map_lookup_elem(&chunks, &key);
	}
	if (!chunk)
		return 1;
#pragma clang loop unroll(disable)
	for (int at = 0; at < CHUNK_PAGES && at < count; at++)
		chunk->pages[(index + at) % CHUNK_PAGES] = number;
	return 0;
}

/*
 * Notes who wrote pages, the last one to make them dirty. Not 0: of some there is no room to note it, and
 * what is noted of those is an earlier writer's.
 */
__noinline int note_pages(__u64 serial, __u64 index, __u32 count, __u32 number)
{
	int missing = 0;

#pragma clang loop unroll(disable)
	for (int chunk = 0; chunk <= FOLIO_PAGES / CHUNK_PAGES && count; chunk++) {
		__u32 room = CHUNK_PAGES - index % CHUNK_PAGES, here = count < room ? count : room;

		missing |= note_in_chunk(serial, index, here, number);
		index += here;
		count -= here;
	}
	return missing || count;
}

/* From now on each page's writer is noted; what is not noted so far is the first one's. */
static __always_inline void share(struct written *written)
{
	if (written->shared)
		return;
	written->first_number = enlist(&written->first);
	written->shared = 1;
}

/* Notes who made a folio dirty, in a file whose pages are noted. */
static __always_inline void note_folio(struct written *written, void *folio)
{
	struct page *head = (void *)plain((__u64)folio);
	__u32 count = pages_from(head), number = own_number();

	if (note_pages(written->serial, index_of(head), count,
		       count > 1 && !written->exact ? number | VAGUE : number))
		written->full = 1;
}

#endif

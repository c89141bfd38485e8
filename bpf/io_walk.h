/* SPDX-License-Identifier: GPL-2.0 */
/* The writers of a bio's pages: a walk over its pages that sums its bytes by the writer of each. */
#ifndef ONSET_IO_WALK_H
#define ONSET_IO_WALK_H

#include "io_writers.h"

#define WALK_PAGES 32 /* of a bio, at one go, */
#define WALK_GOES  32 /* and in all */
/* Writers told apart in one bio, and one more for the unknown; a power of two. */
#define SHARES 16

const volatile __u32 page_bits = 12;

struct share {
	__u32 number;
	__u32 bytes;
};

/* A bio's bytes by who wrote them. */
struct split {
	__u32 count;
	__u32 pad;
	struct owner submitter; /* who handed it to the device: all there is where a writer is not known */
	struct share shares[SHARES];
};

/* One walk over the pages of a bio. */
struct walk {
	__u64 vector;
	__u64 serial;
	__u64 page; /* the first of the place below */
	__u32 next; /* of the vector */
	__u32 left;
	__u32 room;    /* in this place of the vector */
	__u32 at;      /* there */
	__u32 alone;   /* nobody else writes to the file */
	__u32 vague;   /* others may have written to a folio unseen */
	__u32 missing; /* the number of a page that is not noted */
	__u32 done;    /* of the first place of the vector: another bio moves it */
	__u32 bytes[UNKNOWN + 1];
	struct split split;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, struct split);
} splits SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct walk);
} walks SEC(".maps");

static __always_inline void add_share(struct walk *walk, __u32 number, __u32 bytes)
{
	__u32 count = walk->split.count;

	number &= UNKNOWN;
	if (number != UNKNOWN && !walk->bytes[number]) {
		if (count < SHARES - 1) {
			walk->split.shares[count].number = number;
			walk->split.count = count + 1;
		} else {
			number = UNKNOWN;
		}
	}
	walk->bytes[number] += bytes;
}

/* The writer of a page, which may be one of several in its folio. */
static __always_inline __u32 writer_of(struct walk *walk, struct page *head, struct page *page)
{
	__u64 index = index_of(head) + pages_between(head, page);
	struct chunk_key key = {.serial = walk->serial, .chunk = index / CHUNK_PAGES};
	struct chunk *chunk = bpf_map_lookup_elem(&chunks, &key);
	__u32 number = chunk ? chunk->pages[index % CHUNK_PAGES] : EARLIER;

	if (walk->vague && (number & VAGUE || (!number && pages_from(head) != 1)))
		return UNKNOWN;
	number &= ~VAGUE;
	return number ? number : walk->missing;
}

/*
 * The next page of a bio, added to its writer's. A function of its own, without its caller's state: the
 * verifier goes through it once. 0: there is none.
 */
__noinline int walk_page(void)
{
	__u32 zero = 0, step;
	struct walk *walk = bpf_map_lookup_elem(&walks, &zero);
	struct page *page, *head;
	struct bio_vec vector = {};

	if (!walk || !walk->left)
		return 0;
	if (!walk->room) {
		bpf_probe_read_kernel(&vector, sizeof(vector), (struct bio_vec *)walk->vector + walk->next);
		walk->next++;
		walk->page = (__u64)vector.bv_page;
		walk->at = vector.bv_offset + walk->done;
		walk->room = vector.bv_len > walk->done ? vector.bv_len - walk->done : 0;
		walk->done = 0;
		if (walk->room > walk->left)
			walk->room = walk->left;
		if (!walk->room)
			return 0;
	}
	page = page_after((void *)walk->page, walk->at >> page_bits);
	head = first_page(page);
	step = (1U << page_bits) - (walk->at & ((1U << page_bits) - 1));
	/* Who writes alone wrote all of a folio. */
	if (walk->alone && page == head) {
		__u32 pages = pages_from(head);

		if (pages <= FOLIO_PAGES)
			step += (pages - 1) << page_bits;
	}
	if (step > walk->room)
		step = walk->room;
	add_share(walk, writer_of(walk, head, page), step);
	walk->at += step;
	walk->room -= step;
	walk->left -= step;
	return 1;
}

/* Some pages of a bio. Apart, so that the verifier need not look at what follows after each page. */
__noinline int walk_pages(void)
{
#pragma clang loop unroll(disable)
	for (int count = 0; count < WALK_PAGES; count++)
		if (!walk_page())
			return 0;
	return 1;
}

/* Says in a key whose bytes they are. */
static __always_inline void attribute(struct flight *flight, struct split *split, __u32 number)
{
	struct owner *owner = bpf_map_lookup_elem(&owners, &number);
	struct row_key *key = &flight->key;

	key->earlier = number == EARLIER;
	key->shared = number != EARLIER && !owner;
	if (!owner)
		owner = &split->submitter;
	key->tgid = owner->tgid;
	key->container = owner->container;
	__builtin_memcpy(flight->comm, owner->comm, sizeof(flight->comm));
}

/* Bytes of its first vector that a bio does not move: another one did. */
static __always_inline __u32 bytes_done(struct bio *bio)
{
	struct bio___renamed *renamed = (void *)bio;

	if (bpf_core_field_exists(bio->bi_iter.bi_bvec_done))
		return BPF_CORE_READ(bio, bi_iter.bi_bvec_done);
	if (bpf_core_field_exists(renamed->bi_iter.bi_offset))
		return BPF_CORE_READ(renamed, bi_iter.bi_offset);
	return 0;
}

/* Finds who wrote the pages of a bio, page by page. */
static __always_inline void split_bio(struct bio *bio, struct flight *flight, struct written *written)
{
	__u64 place = (__u64)bio;
	struct split *split;
	struct walk *walk;
	__u32 zero = 0;

	walk = bpf_map_lookup_elem(&walks, &zero);
	if (!walk)
		return;
	walk->vector = (__u64)BPF_CORE_READ(bio, bi_io_vec);
	walk->next = BPF_CORE_READ(bio, bi_iter.bi_idx);
	walk->done = bytes_done(bio);
	walk->left = flight->bytes;
	walk->room = 0;
	walk->serial = written->serial;
	walk->alone = !written->shared;
	walk->vague = written->shared && !written->exact;
	walk->missing = written->full ? UNKNOWN : written->mixed ? EARLIER : written->first_number;
	split = &walk->split;
	split->count = 0;
	split->submitter.tgid = flight->key.tgid;
	split->submitter.container = flight->key.container;
	__builtin_memcpy(split->submitter.comm, flight->comm, sizeof(flight->comm));
#pragma clang loop unroll(disable)
	for (int go = 0; go < WALK_GOES; go++)
		if (!walk_pages())
			break;
	/* What is beyond the limit. */
	if (walk->left)
		add_share(walk, UNKNOWN, walk->left);
#pragma clang loop unroll(disable)
	for (int at = 0; at < SHARES - 1; at++) {
		__u32 number = split->shares[at].number & UNKNOWN;

		if (at >= split->count)
			break;
		split->shares[at].bytes = walk->bytes[number];
		walk->bytes[number] = 0;
	}
	if (walk->bytes[UNKNOWN] && split->count < SHARES) {
		split->shares[split->count].number = UNKNOWN;
		split->shares[split->count].bytes = walk->bytes[UNKNOWN];
		walk->bytes[UNKNOWN] = 0;
		split->count++;
	}
	attribute(flight, split, split->shares[0].number);
	if (split->count < 2)
		return;
	flight->split = 1;
	if (bpf_map_update_elem(&splits, &place, split, BPF_ANY)) {
		flight->split = 0;
		attribute(flight, split, UNKNOWN);
	}
}

/* Writes of cached pages are those of who made them dirty. */
static __always_inline void find_writers(struct bio *bio, struct flight *flight, struct file_id *file,
					 __u64 run)
{
	struct written *written = bpf_map_lookup_elem(&dirtiers, file);

	if (!written || written->run != run) {
		flight->key.earlier = 1;
	} else if (written->shared || written->mixed) {
		split_bio(bio, flight, written);
	} else {
		flight->key.tgid = written->first.tgid;
		flight->key.container = written->first.container;
		__builtin_memcpy(flight->comm, written->first.comm, sizeof(flight->comm));
	}
}

#endif

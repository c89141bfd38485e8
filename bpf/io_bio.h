/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The way of a bio: queued, issued with a request, and complete. At its end it is counted for each
 * capture that wants its disk. Its clones on disks below are whose it is.
 */
#ifndef ONSET_IO_BIO_H
#define ONSET_IO_BIO_H

#include "io_file.h"

#define BIOS_MAX   256			  /* in a request: more segments has no queue */
#define DISK_BELOW (1 << SLOTS_MAX)	  /* it gets clones of another one's bios */
#define DISK_ABOVE (1 << (SLOTS_MAX + 1)) /* it makes clones of bios for another one */

/* include/linux/blk_types.h */
#define REQ_OP_MASK    0xff
#define REQ_OP_DISCARD 3
#define REQ_OP_ZONES   10 /* from here on operations move no data */

/* Whether diskstats counts it as bytes read or written. */
static __always_inline bool moves_data(__u32 op)
{
	return op != REQ_OP_DISCARD && op < REQ_OP_ZONES;
}

/* The attribution of the bio above that this one is a clone of. */
static __always_inline bool inherit(__u64 vector, struct flight *flight)
{
	struct flight *above = bpf_map_lookup_elem(&vectors, &vector);
	__u32 disk = flight->key.disk;

	/* Its pages tell whose they are as they told of those above. */
	if (!above || above->split)
		return false;
	flight->key = above->key;
	flight->key.disk = disk;
	__builtin_memcpy(flight->comm, above->comm, sizeof(flight->comm));
	return true;
}

static __always_inline int queue_bio(struct bio *bio)
{
	__u32 disk = disk_of(bio), op = BPF_CORE_READ(bio, bi_opf) & REQ_OP_MASK;
	__u32 *how = bpf_map_lookup_elem(&disks, &disk);
	__u64 place = (__u64)bio, vector;
	struct flight flight = {};
	struct owner owner = {};

	flight.bytes = BPF_CORE_READ(bio, bi_iter.bi_size);
	if (!how || !flight.bytes || !moves_data(op))
		return 0;
	flight.write = op & 1;
	flight.key.disk = disk;
	vector = (__u64)BPF_CORE_READ(bio, bi_io_vec);
	flight.vector = *how & DISK_ABOVE ? vector : 0;
	if (!(*how & DISK_BELOW) || !inherit(vector, &flight)) {
		own(&owner);
		flight.key.tgid = owner.tgid;
		flight.key.container = owner.container;
		__builtin_memcpy(flight.comm, owner.comm, sizeof(flight.comm));
		/* Of those that only wipe, the vector is not theirs. */
		if (op <= 1)
			find_file(bio, &flight);
	}
	flight.queued_ns = bpf_ktime_get_ns();
	if (flight.vector)
		bpf_map_update_elem(&vectors, &vector, &flight, BPF_ANY);
	if (bpf_map_update_elem(&flights, &place, &flight, BPF_ANY))
		count_lost();
	return 0;
}

static __always_inline int issue_request(struct request *request)
{
	__u64 now = bpf_ktime_get_ns();
	struct bio *bio = request->bio;

#pragma clang loop unroll(disable)
	for (int count = 0; count < BIOS_MAX && bio; count++) {
		__u64 place = (__u64)bio;
		struct flight *flight = bpf_map_lookup_elem(&flights, &place);

		/* The last time counts: a device that was busy has it issued again. */
		if (flight)
			flight->issued_ns = now;
		bio = bio->bi_next;
	}
	return 0;
}

static __always_inline struct row *row_of(struct row_key *key, const char *comm)
{
	struct row *row = bpf_map_lookup_elem(&rows, key);
	struct row new = {};

	if (row)
		return row;
	__builtin_memcpy(new.comm, comm, sizeof(new.comm));
	bpf_map_update_elem(&rows, key, &new, BPF_NOEXIST);
	row = bpf_map_lookup_elem(&rows, key);
	if (!row)
		count_lost();
	return row;
}

static __always_inline void add_time(__u64 took, __u64 *sum, __u64 *max)
{
	__sync_fetch_and_add(sum, took);
	/* Two at once may leave the lesser: they are of a kind. */
	if (took > *max)
		*max = took;
}

static __always_inline void add_flight(struct row *row, struct flight *flight, __u64 now)
{
	__sync_fetch_and_add(flight->write ? &row->written : &row->read, flight->bytes);
	__sync_fetch_and_add(&row->bios, 1);
	add_time(now - flight->queued_ns, &row->q2c_ns, &row->q2c_max_ns);
	if (flight->issued_ns) {
		__sync_fetch_and_add(&row->issued, 1);
		add_time(now - flight->issued_ns, &row->d2c_ns, &row->d2c_max_ns);
	}
}

/* Counts it for each capture that wants its disk. */
static __always_inline void count_flight(struct flight *flight, __u32 slots, __u64 now)
{
#pragma clang loop unroll(disable)
	for (int slot = 0; slot < SLOTS_MAX; slot++) {
		struct row *row;

		if (!(slots & (1 << slot)))
			continue;
		flight->key.slot = slot;
		row = row_of(&flight->key, flight->comm);
		if (row)
			add_flight(row, flight, now);
	}
}

/*
 * One process's part of a bio that moved several's pages. It changes the flight where it lies, which is at
 * its end: there is no room for another on the stack.
 */
__noinline int count_share(__u64 place, __u32 number, __u64 now)
{
	struct flight *flight = bpf_map_lookup_elem(&flights, &place);
	struct split *split = bpf_map_lookup_elem(&splits, &place);
	struct share *share;
	__u32 *how;

	if (!flight || !split || number >= split->count)
		return 0;
	how = bpf_map_lookup_elem(&disks, &flight->key.disk);
	if (!how)
		return 0;
	share = &split->shares[number % SHARES];
	flight->bytes = share->bytes;
	attribute(flight, split, share->number);
	count_flight(flight, *how, now);
	return 1;
}

static __always_inline void count_shares(__u64 place, __u64 now)
{
	place = plain(place);
#pragma clang loop unroll(disable)
	for (int number = 0; number < SHARES; number++) {
		if (!count_share(place, number, now))
			break;
	}
	bpf_map_delete_elem(&splits, &place);
}

/* A bio came to its end. */
static __always_inline int end_flight(__u64 place)
{
	struct flight *found = bpf_map_lookup_elem(&flights, &place);
	__u64 now = bpf_ktime_get_ns();
	struct flight flight;
	__u32 *how;

	if (!found)
		return 0;
	flight = *found;
	if (flight.split)
		count_shares(place, now);
	bpf_map_delete_elem(&flights, &place);
	/* The next to have this memory is another one's. */
	if (flight.vector)
		bpf_map_delete_elem(&vectors, &flight.vector);
	how = bpf_map_lookup_elem(&disks, &flight.key.disk);
	if (how && !flight.split)
		count_flight(&flight, *how, now);
	return 0;
}

/* Apart, so that the verifier need not follow it for each bio of a request. */
__noinline int finish(__u64 place)
{
	return end_flight(place);
}

/* All bios of a request that these bytes complete. */
static __always_inline int complete_request(struct request *request, __u32 bytes)
{
	struct bio *bio = BPF_CORE_READ(request, bio);

#pragma clang loop unroll(disable)
	for (int count = 0; count < BIOS_MAX && bio; count++) {
		__u32 size = BPF_CORE_READ(bio, bi_iter.bi_size);

		if (size > bytes)
			break;
		bytes -= size;
		finish((__u64)bio);
		bio = BPF_CORE_READ(bio, bi_next);
	}
	return 0;
}

#endif

/* SPDX-License-Identifier: GPL-2.0 */
/* Pages and folios of the page cache: which page is which folio's, and where it is in its file. */
#ifndef ONSET_IO_PAGES_H
#define ONSET_IO_PAGES_H

#include "io.h"

#define FOLIO_PAGES 512 /* 2 MiB of 4 KiB: a folio in the cache is no larger, nor is one write to it */

/* A mask of page addresses keeps at least these bits; no address of a page is that high. */
#define LEAST_MASK (~0ULL << 30)

/*
 * The head page of the folio that `page` is in. A later page tells where it is, or what bits of its own place
 * tell.
 */
static __always_inline struct page *first_page(struct page *page)
{
	struct page___info *newer = (void *)page;
	__u64 told = 0;

	if (bpf_core_field_exists(page->compound_head))
		told = BPF_CORE_READ(page, compound_head);
	else if (bpf_core_field_exists(newer->compound_info))
		told = BPF_CORE_READ(newer, compound_info);
	if (!(told & 1))
		return page;
	return (void *)(told >= LEAST_MASK ? (__u64)page & told : told - 1);
}

static __always_inline struct page *page_after(struct page *page, __u64 count)
{
	return (void *)page + count * bpf_core_type_size(struct page);
}

static __always_inline __u64 pages_between(struct page *head, struct page *page)
{
	return ((__u64)page - (__u64)head) / bpf_core_type_size(struct page);
}

/* Pages in the folio that `head` is the first page of; more than there are where the kernel does not tell. */
static __always_inline __u32 pages_from(struct page *head)
{
	struct folio *folio = (void *)head;
	struct folio___older *older = (void *)head;

	if (first_page(page_after(head, 1)) != head)
		return 1;
	if (bpf_core_field_exists(folio->_nr_pages))
		return BPF_CORE_READ(folio, _nr_pages);
	if (bpf_core_field_exists(older->_folio_nr_pages))
		return BPF_CORE_READ(older, _folio_nr_pages);
	return FOLIO_PAGES + 1;
}

static __always_inline __u64 index_of(struct page *head)
{
	struct page___index *older = (void *)head;
	struct folio *folio = (void *)head;

	if (bpf_core_field_exists(folio->index))
		return BPF_CORE_READ(folio, index);
	return BPF_CORE_READ(older, index);
}

#endif

/*
 * Touches memory at three sites, again and again: it begins at a line on its standard input, which
 * says for how many milliseconds, and then says `three`, `one` and `large`: how many bytes each site touched,
 * and `faults`: what the kernel counted of it. It stays until the input ends.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define PAGE  4096UL
#define LARGE (2UL << 20)

static void touch(char *at, unsigned long bytes)
{
	for (unsigned long i = 0; i < bytes; i += PAGE)
		at[i] = 1;
}

__attribute__((noinline)) void touches_three(char *at, unsigned long bytes)
{
	touch(at, bytes);
}

__attribute__((noinline)) void touches_one(char *at, unsigned long bytes)
{
	touch(at, bytes);
}

__attribute__((noinline)) void touches_large(char *at, unsigned long bytes)
{
	touch(at, bytes);
}

static char *region(unsigned long bytes, int advice)
{
	char *at = mmap(NULL, bytes + LARGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	at += LARGE - (unsigned long)at % LARGE;
	madvise(at, bytes, advice);
	return at;
}

static double ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1e3 + now.tv_nsec / 1e6;
}

static long faults(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return usage.ru_minflt;
}

int main(void)
{
	unsigned long three = 24UL << 20, one = 8UL << 20, large = 8UL << 20;
	double end;
	unsigned long steps = 0;
	char *small_at = region(three + one, MADV_NOHUGEPAGE), *large_at = region(large, MADV_HUGEPAGE);
	long before, small_faults = 0;
	char line[32] = "";

	if (read(0, line, sizeof(line) - 1) <= 0)
		return 1;
	for (end = ms() + atof(line); ms() < end; steps++) {
		before = faults();
		touches_three(small_at, three);
		touches_one(small_at + three, one);
		small_faults += faults() - before;
		touches_large(large_at, large);
		madvise(small_at, three + one, MADV_DONTNEED);
		madvise(large_at, large, MADV_DONTNEED);
		usleep(40000);
	}
	printf("three %lu one %lu large %lu faults %ld\n", three * steps, one * steps, large * steps,
	       small_faults);
	fflush(stdout);
	return read(0, line, 1) != 0;
}

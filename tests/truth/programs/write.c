/*
 * Writes and reads files in every way: ARGUMENTS: all FOLDER STEPS | brief FOLDER STEPS. It takes STEPS steps
 * at most. It begins at a line on its standard input, which says for how many milliseconds, then says `NAME
 * BYTES` of each file, and `done`. It stays until the input ends.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define BLOCK (64UL << 10)

static char *block;
static const char *folder;

static int opened(const char *name, int flags)
{
	char path[4096];
	int file;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	file = open(path, flags | O_CREAT, 0600);
	if (file < 0) {
		perror(path);
		exit(1);
	}
	return file;
}

static double ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1e3 + now.tv_nsec / 1e6;
}

/* When it is over, and how long a pause is at each step. */
static double end;
static useconds_t pause_us;

static void must(int holds, const char *what)
{
	if (holds)
		return;
	perror(what);
	exit(1);
}

/* In every way at once, a block at each step; each file has all its bytes once. */
static void all(long most)
{
	int buffered = opened("buffered", O_WRONLY), direct = opened("direct", O_WRONLY | O_DIRECT);
	int synced = opened("synced", O_WRONLY | O_SYNC), mapped = opened("mapped", O_RDWR);
	int readable = opened("read", O_RDONLY);
	long steps = 0;
	char *map;

	must(!ftruncate(mapped, most * BLOCK), "ftruncate");
	map = mmap(NULL, most * BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED, mapped, 0);
	must(map != MAP_FAILED, "mmap");
	posix_fadvise(readable, 0, 0, POSIX_FADV_DONTNEED);
	posix_fadvise(readable, 0, 0, POSIX_FADV_RANDOM);
	for (; steps < most && ms() < end; steps++) {
		off_t at = steps * BLOCK;

		must(pwrite(buffered, block, BLOCK, at) == BLOCK && !fsync(buffered), "buffered");
		must(pwrite(direct, block, BLOCK, at) == BLOCK, "direct");
		must(pwrite(synced, block, 4096, steps * 4096) == 4096, "synced");
		memset(map + at, 1, BLOCK);
		must(!msync(map + at, BLOCK, MS_SYNC), "msync");
		must(pread(readable, block, BLOCK, at) == BLOCK, "read");
		usleep(pause_us);
	}
	printf("buffered %lu\ndirect %lu\nsynced %lu\nmapped %lu\nread %lu\n", steps * BLOCK, steps * BLOCK,
	       steps * 4096, steps * BLOCK, steps * BLOCK);
}

/* One file after the other, each gone before the next: the kernel gives its inode number on. */
static void brief(long most)
{
	for (long step = 0; step < most && ms() < end; step++) {
		char name[32], path[4096];
		long blocks = 1 + step % 4;
		int file;

		snprintf(name, sizeof(name), "brief%ld", step);
		snprintf(path, sizeof(path), "%s/%s", folder, name);
		file = opened(name, O_WRONLY);
		for (long i = 0; i < blocks; i++)
			must(write(file, block, BLOCK) == BLOCK, "write");
		must(!fsync(file) && !unlink(path), "brief");
		close(file);
		printf("%s %lu\n", name, blocks * BLOCK);
		usleep(pause_us);
	}
}

int main(int argc, char **argv)
{
	char line[32] = "";
	long steps;

	if (argc < 4 || read(0, line, sizeof(line) - 1) <= 0)
		return 1;
	folder = argv[2];
	steps = atol(argv[3]);
	must(!posix_memalign((void **)&block, 4096, BLOCK), "memory");
	memset(block, 1, BLOCK);
	end = ms() + atof(line);
	pause_us = atof(line) * 500 / steps;
	(strcmp(argv[1], "all") ? brief : all)(steps);
	puts("done");
	fflush(stdout);
	return read(0, line, 1) != 0;
}

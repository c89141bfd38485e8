/* Code made at run time, named by a perf map alone. ARGUMENTS: where it lies (anon, named, heap, memfd), its
 * name. */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#endif

#define BYTES (1UL << 20)

#if defined(__x86_64__)
/* push %rbp; mov %rsp,%rbp; 1: inc %rax; inc %rcx; jmp 1b */
static const unsigned char code[] = {0x55, 0x48, 0x89, 0xe5, 0x48, 0xff, 0xc0, 0x48, 0xff, 0xc1, 0xeb, 0xf8};
#else
/* stp x29, x30, [sp, #-16]!; mov x29, sp; 1: add x0, x0, #1; b 1b */
static const unsigned int code[] = {0xa9bf7bfd, 0x910003fd, 0x91000400, 0x17ffffff};
#endif

static char *room(const char *kind)
{
	int all = PROT_READ | PROT_WRITE | PROT_EXEC, file;
	char *at;

	if (!strcmp(kind, "heap")) {
		at = (char *)(((unsigned long)sbrk(0) + 4095) & ~4095UL);
		return brk(at + BYTES) || mprotect(at, BYTES, all) ? NULL : at;
	}
	if (!strcmp(kind, "memfd")) {
		file = memfd_create("doublemapper", 0);
		return ftruncate(file, BYTES) ? NULL : mmap(NULL, BYTES, all, MAP_SHARED, file, 0);
	}
	at = mmap(NULL, BYTES, all, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (!strcmp(kind, "named"))
		prctl(PR_SET_VMA, 0, at, BYTES, "truth JIT code");
	return at;
}

int main(int argc, char **argv)
{
	char path[64], *at = argc > 2 ? room(argv[1]) : NULL;
	FILE *map;

	snprintf(path, sizeof(path), "/tmp/perf-%d.map", getpid());
	map = fopen(path, "w");
	if (!at || !map)
		return 1;
	memcpy(at, code, sizeof(code));
	__builtin___clear_cache(at, at + sizeof(code));
	fprintf(map, "%lx %lx %s\n", (unsigned long)at, sizeof(code), argv[2]);
	fclose(map);
	((void (*)(void))at)();
	return 0;
}

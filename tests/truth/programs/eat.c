/* Takes memory and keeps it: ARGUMENTS: MiB, and `private` (if none), `locked` or `shared`. Says so once it
 * has it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	unsigned long all = (argc > 1 ? strtoul(argv[1], NULL, 10) : 1) << 20;
	const char *kind = argc > 2 ? argv[2] : "private";
	int flags = MAP_ANONYMOUS | (strcmp(kind, "shared") ? MAP_PRIVATE : MAP_SHARED);
	char *at = mmap(NULL, all, PROT_READ | PROT_WRITE, flags, -1, 0);

	if (at == MAP_FAILED || (!strcmp(kind, "locked") && mlock(at, all))) {
		perror(kind);
		return 1;
	}
	for (unsigned long i = 0; i < all; i += 4096)
		at[i] = 1;
	puts("done");
	fflush(stdout);
	for (;;)
		pause();
}

/* Takes memory and keeps it: ARGUMENTS: MiB. Says so once it has it. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	unsigned long all = (argc > 1 ? strtoul(argv[1], NULL, 10) : 1) << 20;
	char *at = mmap(NULL, all, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	for (unsigned long i = 0; i < all; i += 4096)
		at[i] = 1;
	puts("done");
	fflush(stdout);
	for (;;)
		pause();
}

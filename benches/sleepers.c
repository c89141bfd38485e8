// SPDX-License-Identifier: GPL-2.0
/* As many threads as it is told to start, all asleep, each with a page for a stack. Prints how many there
 * are. */
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define STACK 4096UL
#define FLAGS (CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM)

static int sleeper(void *unused)
{
	for (;;)
		pause();
	return 0;
}

int main(int count, char **words)
{
	unsigned long wanted = count > 1 ? strtoul(words[1], NULL, 10) : 0, started;
	char *stacks = mmap(NULL, (wanted + 1) * STACK, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (stacks == MAP_FAILED)
		return 1;
	for (started = 0; started < wanted; started++)
		if (clone(sleeper, stacks + (started + 1) * STACK, FLAGS, NULL) < 0)
			break;
	printf("%lu\n", started);
	fflush(stdout);
	return sleeper(NULL);
}

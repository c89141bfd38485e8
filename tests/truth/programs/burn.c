/*
 * Burns CPU in a way: ARGUMENTS: all | half | brief. It begins at a line on its standard input, which
 * says for how many milliseconds, says when it has done, and stays until the input ends, so that its counts
 * can be read.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static volatile unsigned long sink;

static double ms_of(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return now.tv_sec * 1e3 + now.tv_nsec / 1e6;
}

/* For some time of that clock. */
static void burn(clockid_t clock, double ms)
{
	double end = ms_of(clock) + ms;

	while (ms_of(clock) < end)
		for (int i = 0; i < 20000; i++)
			sink += i;
}

/* A process that lives for a few milliseconds. */
static void one_brief(void)
{
	pid_t pid = fork();

	if (!pid) {
		burn(CLOCK_PROCESS_CPUTIME_ID, 4);
		_exit(0);
	}
	waitpid(pid, NULL, 0);
}

int main(int argc, char **argv)
{
	const char *way = argc > 1 ? argv[1] : "all";
	double lasting, end;
	char line[32] = "";

	if (read(0, line, sizeof(line) - 1) <= 0)
		return 1;
	lasting = atof(line);
	end = ms_of(CLOCK_MONOTONIC) + lasting;
	if (!strcmp(way, "all"))
		burn(CLOCK_MONOTONIC, lasting);
	while (ms_of(CLOCK_MONOTONIC) < end) {
		if (!strcmp(way, "half"))
			burn(CLOCK_PROCESS_CPUTIME_ID, 20);
		else
			one_brief();
		usleep(20000);
	}
	puts("done");
	fflush(stdout);
	return read(0, line, 1) != 0;
}

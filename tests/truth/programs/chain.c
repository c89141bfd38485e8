/*
 * Burns CPU in `inner_NAME`, which `middle_NAME` calls, which `outer_NAME` calls; nothing else is ever
 * called of what lies between them. ARGUMENTS: none, or `exec PATH`, or `rename NAME`, after 1.5 s.
 */
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define JOIN(word, name) word##name
#define OF(word, name)	 JOIN(word, name)
#define FUNCTION(word)	 __attribute__((noinline, noclone)) void OF(word, NAME)

static volatile unsigned long sink;

FUNCTION(decoy_before_)(void)
{
	sink += 3;
}

FUNCTION(inner_)(void)
{
	for (int i = 0; i < 3000000; i++)
		sink += i;
}

FUNCTION(decoy_between_)(void)
{
	sink += 5;
}

static double seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec + now.tv_nsec / 1e9;
}

FUNCTION(middle_)(double lasting)
{
	double end = seconds() + lasting;

	do
		OF(inner_, NAME)();
	while (seconds() < end);
	sink++;
}

FUNCTION(decoy_after_)(void)
{
	sink += 7;
}

FUNCTION(outer_)(double lasting)
{
	OF(middle_, NAME)(lasting);
	sink++;
}

int main(int argc, char **argv)
{
	if (argc > 3)
		OF(decoy_before_, NAME)(), OF(decoy_between_, NAME)(), OF(decoy_after_, NAME)();
	if (argc == 3)
		OF(outer_, NAME)(1.5);
	if (argc == 3 && !strcmp(argv[1], "exec"))
		execl(argv[2], argv[2], (char *)NULL);
	if (argc == 3 && !strcmp(argv[1], "rename"))
		prctl(PR_SET_NAME, argv[2]);
	for (;;)
		OF(outer_, NAME)(60);
}

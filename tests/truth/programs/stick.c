/* Opens a file to write to it, on a filesystem that is frozen: ARGUMENTS: FILE. Says the time at which it
 * does. */
#include <fcntl.h>
#include <stdio.h>
#include <time.h>

int main(int argc, char **argv)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	printf("%lld\n", now.tv_sec * 1000LL + now.tv_nsec / 1000000);
	fflush(stdout);
	return argc < 2 || open(argv[1], O_WRONLY | O_CREAT, 0600) < 0;
}

// The demo's anomaly: a program that has little to do, and then suddenly very much.
#include <stdlib.h>
#include <unistd.h>

static volatile unsigned long sink;

__attribute__((noinline)) static void parse_the_same_file_again(void)
{
	for (unsigned long i = 0; i < 20000000UL; i++)
		sink += i;
}

__attribute__((noinline)) static void serve_requests(void)
{
	for (unsigned long i = 0; i < 5000000UL; i++)
		sink ^= i;
	parse_the_same_file_again();
}

int main(int argc, char **argv)
{
	sleep(argc > 1 ? (unsigned int)atoi(argv[1]) : 0);
	for (;;)
		serve_requests();
}

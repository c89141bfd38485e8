// SPDX-License-Identifier: GPL-2.0
/* What a program costs that does nothing: `make bench` prints it beside those that do something. */
#include "common.h"

SEC("tp_btf/sched_switch")
int nothing(void *context)
{
	return 0;
}

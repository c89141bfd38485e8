// SPDX-License-Identifier: GPL-2.0
/* Stacks of what runs on each CPU, sampled by a clock: each sample weighs one. */
#include "sampled.h"

SEC("perf_event")
int sample_stack(void *ctx)
{
	return take_sample(ctx, KERNEL_AND_USER, 1);
}

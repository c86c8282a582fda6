/*
 * Private to the room: what the machine, or the container, lets the process have.
 * Files are read under `root` ("" for the real ones), so that tests can fake /proc and /sys.
 */
#ifndef HASHTRIE_CONFIG_MACHINE_H
#define HASHTRIE_CONFIG_MACHINE_H

#include <stdint.h>

/*
 * Bytes of memory: the least of the limits of the process's cgroup and all above it (v2
 * memory.max, v1 memory.limit_in_bytes) and of the physical memory. 0: nothing could be read.
 */
uint64_t machine_memory_limit(const char *root);

/*
 * CPUs: `affinity` or, if less, the least cgroup quota (v2 cpu.max, v1 cpu.cfs_quota_us), rounded
 * up; at least 1.
 */
uint32_t machine_cpu_limit(const char *root, uint32_t affinity);

/* CPUs that the calling thread may run on; at least 1. */
uint32_t machine_cpu_affinity(void);

#endif

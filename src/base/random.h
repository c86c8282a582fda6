/* Seeded pseudo-random numbers (splitmix64, public domain, Vigna). Not for secrets, except seeds
 * from the system. */
#ifndef HASHTRIE_BASE_RANDOM_H
#define HASHTRIE_BASE_RANDOM_H

#include <stdint.h>

struct random {
    uint64_t state;
};

static inline uint64_t random_next(struct random *random)
{
    uint64_t z = (random->state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* 0 .. bound - 1, bias below bound / 2^32. bound > 0. */
static inline uint32_t random_below(struct random *random, uint32_t bound)
{
    return (uint32_t)(((random_next(random) >> 32) * bound) >> 32);
}

uint64_t random_system_seed(void); /* From the kernel's generator. */

#endif

#include "base/random.h"

#include <sys/random.h>

#include "base/check.h"

uint64_t random_system_seed(void)
{
    uint64_t seed = 0;
    ssize_t size = getrandom(&seed, sizeof seed, 0);
    CHECK(size ==
          (ssize_t)sizeof seed); /* Up to 256 bytes never come short once the pool is ready. */
    return seed;
}

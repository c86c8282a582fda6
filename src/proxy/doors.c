#include "proxy/doors.h"

#include "base/check.h"
#include "base/clock.h"

#define TELL_NS (60 * CLOCK_NS_PER_S)

void doors_init(struct doors *doors, uint64_t connections_max, uint64_t address_max, uint64_t seed)
{
    doors->connections_max = connections_max;
    doors->address_max = address_max;
    atomic_init(&doors->inside, 0);
    atomic_init(&doors->refused_told_ns, 0);
    atomic_init(&doors->starved_told_ns, 0);
    pthread_mutex_init(&doors->mutex, NULL);
    mem_init(&doors->mem, SIZE_MAX);
    counts_init(&doors->addresses, &doors->mem, seed);
}

void doors_fini(struct doors *doors)
{
    REQUIRE(atomic_load(&doors->inside) == 0);
    counts_fini(&doors->addresses);
    mem_fini(&doors->mem);
    pthread_mutex_destroy(&doors->mutex);
}

enum doors_verdict doors_enter(struct doors *doors, uint64_t address)
{
    if (atomic_fetch_add(&doors->inside, 1) >= doors->connections_max) {
        atomic_fetch_sub(&doors->inside, 1);
        return DOORS_FULL;
    }
    if (doors->address_max == 0) {
        return DOORS_OPEN;
    }
    pthread_mutex_lock(&doors->mutex);
    bool counted = counts_add(&doors->addresses, address, doors->address_max);
    pthread_mutex_unlock(&doors->mutex);
    if (!counted) {
        atomic_fetch_sub(&doors->inside, 1);
        return DOORS_ADDRESS_FULL;
    }
    return DOORS_OPEN;
}

void doors_leave(struct doors *doors, uint64_t address)
{
    if (doors->address_max > 0) {
        pthread_mutex_lock(&doors->mutex);
        counts_drop(&doors->addresses, address);
        pthread_mutex_unlock(&doors->mutex);
    }
    uint64_t before = atomic_fetch_sub(&doors->inside, 1);
    CHECK(before > 0);
}

bool doors_tell(_Atomic uint64_t *told_ns, uint64_t now_ns)
{
    uint64_t last_ns = atomic_load(told_ns);
    return (last_ns == 0 || now_ns > last_ns + TELL_NS) &&
           atomic_compare_exchange_strong(told_ns, &last_ns, now_ns);
}

#include "proxy/body.h"

#include "base/check.h"

void bodies_init(struct bodies *bodies, uint64_t bytes_max, uint64_t body_bytes_max)
{
    uint64_t reserve = body_bytes_max < bytes_max / 2 ? body_bytes_max : bytes_max / 2;
    bodies->bytes_soft = bytes_max - reserve;
    atomic_init(&bodies->bytes_used, 0);
    atomic_init(&bodies->finisher, NULL);
    atomic_init(&bodies->waiting, false);
}

void bodies_add(struct bodies *bodies, uint64_t bytes)
{
    atomic_fetch_add(&bodies->bytes_used, bytes);
}

bool bodies_may_read(struct bodies *bodies, const void *owner)
{
    if (atomic_load(&bodies->bytes_used) < bodies->bytes_soft) {
        return true;
    }
    const void *nobody = NULL;
    if (atomic_load(&bodies->finisher) == owner ||
        atomic_compare_exchange_strong(&bodies->finisher, &nobody, owner)) {
        return true;
    }
    atomic_store(&bodies->waiting, true);
    /* Memory may have been freed before `waiting` was set: look once more. */
    nobody = NULL;
    return atomic_load(&bodies->bytes_used) < bodies->bytes_soft ||
           atomic_compare_exchange_strong(&bodies->finisher, &nobody, owner);
}

bool bodies_is_awaited(struct bodies *bodies, const void *owner)
{
    return atomic_load(&bodies->finisher) == owner && atomic_load(&bodies->waiting);
}

bool bodies_give_back(struct bodies *bodies, uint64_t bytes)
{
    uint64_t before = atomic_fetch_sub(&bodies->bytes_used, bytes);
    CHECK(before >= bytes);
    return before - bytes < bodies->bytes_soft && atomic_exchange(&bodies->waiting, false);
}

bool bodies_free(struct bodies *bodies, const void *owner, uint64_t bytes)
{
    uint64_t before = atomic_fetch_sub(&bodies->bytes_used, bytes);
    CHECK(before >= bytes);
    const void *self = owner;
    bool was_finisher = atomic_compare_exchange_strong(&bodies->finisher, &self, NULL);
    bool room = before - bytes < bodies->bytes_soft;
    return (was_finisher || room) && atomic_exchange(&bodies->waiting, false);
}

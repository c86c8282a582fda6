/*
 * How many connections clients may have: all together, and each address. What is over is closed at
 * once, before a byte is read: the cheapest that can be done for it.
 *
 * Threads: any.
 */
#ifndef HASHTRIE_PROXY_DOORS_H
#define HASHTRIE_PROXY_DOORS_H

#include <pthread.h>
#include <stdatomic.h>

#include "proxy/counts.h"

enum doors_verdict { DOORS_OPEN, DOORS_FULL, DOORS_ADDRESS_FULL };

struct doors {
    uint64_t connections_max;
    uint64_t address_max; /* 0: any number, and addresses are not counted. */
    _Atomic uint64_t inside;
    pthread_mutex_t mutex; /* Around `addresses`. */
    struct mem mem;
    struct counts addresses;
    /* When the log last said that connections are refused, or wait for descriptors; 0: never. */
    _Atomic uint64_t refused_told_ns;
    _Atomic uint64_t starved_told_ns;
};

void doors_init(struct doors *doors, uint64_t connections_max, uint64_t address_max, uint64_t seed);
void doors_fini(struct doors *doors); /* All have left. */
enum doors_verdict doors_enter(struct doors *doors, uint64_t address);
void doors_leave(struct doors *doors, uint64_t address);
/* True: it is time to say so in the log; at most once a minute. */
bool doors_tell(_Atomic uint64_t *told_ns, uint64_t now_ns);

#endif

/* Threads that are to take no signals, but for those that tell of their own faults: a fault whose
 * signal is blocked ends the process without any handler. */
#ifndef HASHTRIE_BASE_SIGNALS_H
#define HASHTRIE_BASE_SIGNALS_H

#include <pthread.h>
#include <signal.h>

#include "base/check.h"

/* Before making a thread, which inherits it. *before: for pthread_sigmask(SIG_SETMASK) after. */
static inline void signals_block(sigset_t *before)
{
    sigset_t all;
    CHECK(sigfillset(&all) == 0);
    CHECK(sigdelset(&all, SIGSEGV) == 0 && sigdelset(&all, SIGBUS) == 0 &&
          sigdelset(&all, SIGABRT) == 0 && sigdelset(&all, SIGILL) == 0 &&
          sigdelset(&all, SIGFPE) == 0);
    CHECK(pthread_sigmask(SIG_SETMASK, &all, before) == 0);
}

#endif

/* A crash leaves its mark in the store, so that the next start does not trust the file. */
#ifndef HASHTRIE_PROXY_CRASH_H
#define HASHTRIE_PROXY_CRASH_H

#include "hashtrie/store.h"

/* From here on SIGSEGV, SIGBUS, SIGABRT, SIGILL and SIGFPE write the mark and then do what they did
 * before. Main thread. The mark is the process's: a store that is opened with it sets it. */
struct hashtrie_crash_mark *crash_mark_install(void);

#endif

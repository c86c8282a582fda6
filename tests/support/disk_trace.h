/*
 * What the preloaded disk (tests/fault/preload/disk.c) shares with the tests that use it: the trace
 * it writes of a process's files, and the faults it is told to make.
 *
 *     LD_PRELOAD              the library
 *     HASHTRIE_DISK_ROOT      the folder that is watched, absolute; its files are "the disk"
 *     HASHTRIE_DISK_TRACE     a file outside of it: gets every change, in order; may be unset
 *     HASHTRIE_DISK_CONTROL   a file of sizeof(struct disk_control) zeroes: faults go in, figures
 *                             come out; may be unset
 */
#ifndef HASHTRIE_TESTS_SUPPORT_DISK_TRACE_H
#define HASHTRIE_TESTS_SUPPORT_DISK_TRACE_H

#include <stdatomic.h>
#include <stdint.h>

enum disk_kind {
    DISK_CREATE = 1, /* path, file: a file came to be. */
    DISK_MKDIR,      /* path. */
    DISK_RENAME,     /* path to path2. */
    DISK_UNLINK,     /* path: a file or an empty folder. */
    DISK_WRITE,      /* file, offset, size; `size` bytes follow. */
    DISK_TRUNCATE,   /* file, size: also makes it longer. */
    DISK_SYNC,       /* file: all of it so far is durable. */
    DISK_SYNC_DIR,   /* path: its entries so far are durable. */
    DISK_MAP,        /* file: mapped shared and writable, so that changes go unseen. */
    DISK_MARK,       /* offset, size: two numbers of the program's own, see disk_mark(). */
};

/* Written after the call it is about; followed by path, path2 and a write's bytes. */
struct disk_record {
    uint32_t kind;
    uint32_t durable; /* A write through O_DSYNC. */
    uint64_t file;    /* Inode number: another file once a DISK_CREATE has it again. */
    uint64_t offset;
    uint64_t size;
    uint32_t path_size; /* Paths are relative to the root; "" is the root. */
    uint32_t path2_size;
};

enum { DISK_THREADS_MAX = 64 };

/* A thread of the process. It is a loop's from its first epoll_wait() on. */
struct disk_thread {
    atomic_uint_least32_t id; /* 0: unused. */
    atomic_uint_least32_t is_loop;
    atomic_uint_least32_t io;          /* Calls on the disk, ... */
    atomic_uint_least32_t io_as_loop;  /* ... and those since it is a loop's. */
    atomic_uint_least32_t map;         /* Calls of LMDB that may touch its map, ... */
    atomic_uint_least32_t map_as_loop; /* ... and since it is a loop's. */
};

enum { DISK_STALL_WRITES = 1, DISK_STALL_READS = 2 };

/* All numbers are 32 bits wide, so that tests in Python find them by their index. */
struct disk_control {
    atomic_uint_least32_t stall;       /* DISK_STALL_..: such calls wait until it is gone. */
    atomic_uint_least32_t write_errno; /* Not 0: writes and truncations fail with it. */
    atomic_uint_least32_t sync_errno;
    atomic_uint_least32_t read_errno;
    atomic_uint_least32_t open_errno;
    atomic_uint_least32_t stalled; /* Calls that waited. */
    atomic_uint_least32_t failed;  /* Calls that were made to fail. */
    atomic_uint_least32_t thread_count;
    struct disk_thread threads[DISK_THREADS_MAX];
};

/* In the preloaded library; to be found with dlsym(RTLD_DEFAULT, "disk_mark"). */
typedef void disk_mark_function(uint64_t first, uint64_t second);

#endif

/*
 * A disk to be preloaded: sees what a process does to the files below a folder, writes it down, and
 * fails or stalls where it is told to. See support/disk_trace.h.
 *
 * One mutex orders changes and their records. Calls that this file does not know of are found by
 * the tests: what the trace makes must be what is in the folder at the end.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "support/disk_trace.h"

enum { FD_MAX = 4096, PATH_MAX_BYTES = 4096, STALL_STEP_NS = 1000000 };

#define EXPORT __attribute__((visibility("default")))

struct open_file {
    atomic_bool watched;
    bool is_directory;
    bool durable; /* O_DSYNC */
    uint64_t file;
};

/* A preloaded library has no other place for what it knows. */
static struct {
    char root[PATH_MAX_BYTES];
    size_t root_size; /* 0: nothing is watched. */
    int trace;
    struct disk_control *control;
    pthread_mutex_t lock;
    struct open_file files[FD_MAX];
} disk = {.trace = -1, .lock = PTHREAD_MUTEX_INITIALIZER};

static _Thread_local struct disk_thread *self;

/* The function that this library hides. */
#define REAL(name)                                        \
    static __typeof__(name) *real;                        \
    if (real == NULL) {                                   \
        void *found = dlsym(RTLD_NEXT, #name);            \
        memcpy(&real, &found, sizeof found); /* ISO C. */ \
    }

/* ---- Threads, faults ---- */

static struct disk_thread *thread_of_caller(void)
{
    if (self == NULL && disk.control != NULL) {
        uint32_t number = atomic_fetch_add(&disk.control->thread_count, 1);
        self = &disk.control->threads[number < DISK_THREADS_MAX ? number : DISK_THREADS_MAX - 1];
        atomic_store(&self->id, (uint32_t)syscall(SYS_gettid));
    }
    return self;
}

static void note_io(void)
{
    struct disk_thread *thread = thread_of_caller();
    if (thread != NULL) {
        (void)atomic_fetch_add(&thread->io, 1);
        (void)atomic_fetch_add(&thread->io_as_loop, atomic_load(&thread->is_loop));
    }
}

static void stall(uint32_t kind)
{
    if (disk.control == NULL || (atomic_load(&disk.control->stall) & kind) == 0) {
        return;
    }
    (void)atomic_fetch_add(&disk.control->stalled, 1);
    while ((atomic_load(&disk.control->stall) & kind) != 0) {
        struct timespec step = {.tv_nsec = STALL_STEP_NS};
        (void)nanosleep(&step, NULL); /* Another process lifts it, through memory alone. */
    }
}

/* True: the call shall fail; errno says how. */
static bool fails(const atomic_uint_least32_t *fault)
{
    uint32_t code = disk.control == NULL ? 0 : atomic_load(fault);
    if (code == 0) {
        return false;
    }
    (void)atomic_fetch_add(&disk.control->failed, 1);
    errno = (int)code;
    return true;
}

/* `field` of the control, where there is one. */
#define FAILS(field) (disk.control != NULL && fails(&disk.control->field))

/* ---- Records ---- */

static void put_record(struct disk_record record, const char *path, const char *path2,
                       const struct iovec *data, int data_count)
{
    if (disk.trace < 0) {
        return;
    }
    enum { PARTS_MAX = 1100 }; /* LMDB gives at most 64 at a time, POSIX allows 1,024. */
    static struct iovec parts[PARTS_MAX];
    record.path_size = path == NULL ? 0 : (uint32_t)strlen(path);
    record.path2_size = path2 == NULL ? 0 : (uint32_t)strlen(path2);
    parts[0] = (struct iovec){&record, sizeof record};
    parts[1] = (struct iovec){(void *)(uintptr_t)path, record.path_size};
    parts[2] = (struct iovec){(void *)(uintptr_t)path2, record.path2_size};
    size_t size = sizeof record + record.path_size + record.path2_size;
    int count = 3;
    for (size_t left = record.kind == DISK_WRITE ? record.size : 0; data_count > 0 && left > 0;
         data++, data_count--) {
        size_t part = data->iov_len < left ? data->iov_len : left;
        parts[count++] = (struct iovec){data->iov_base, part};
        size += part;
        left -= part;
    }
    REAL(writev);
    if (real(disk.trace, parts, count) != (ssize_t)size) {
        (void)fprintf(stderr, "disk: the trace cannot be written\n");
        abort();
    }
}

EXPORT void disk_mark(uint64_t first, uint64_t second);
void disk_mark(uint64_t first, uint64_t second)
{
    pthread_mutex_lock(&disk.lock);
    put_record((struct disk_record){.kind = DISK_MARK, .offset = first, .size = second}, NULL, NULL,
               NULL, 0);
    pthread_mutex_unlock(&disk.lock);
}

/* The path below the root, or NULL if it is not below. */
static const char *below_root(const char *path)
{
    if (disk.root_size == 0 || path == NULL || strncmp(path, disk.root, disk.root_size) != 0) {
        return NULL;
    }
    const char *rest = path + disk.root_size;
    if (*rest == '\0') {
        return rest;
    }
    return *rest == '/' ? rest + 1 : NULL;
}

static struct open_file *watched(int fd)
{
    bool known = fd >= 0 && fd < FD_MAX && atomic_load(&disk.files[fd].watched);
    return known ? &disk.files[fd] : NULL;
}

/* ---- Start ---- */

static void lock_all(void)
{
    pthread_mutex_lock(&disk.lock);
}

static void unlock_all(void)
{
    pthread_mutex_unlock(&disk.lock);
}

static void child_begins(void)
{
    self = NULL;
    pthread_mutex_unlock(&disk.lock);
}

__attribute__((constructor)) static void begin(void)
{
    const char *root = getenv("HASHTRIE_DISK_ROOT");
    const char *trace = getenv("HASHTRIE_DISK_TRACE");
    const char *control = getenv("HASHTRIE_DISK_CONTROL");
    if (trace != NULL) {
        disk.trace = open(trace, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    }
    if (control != NULL) {
        int fd = open(control, O_RDWR | O_CLOEXEC);
        void *map = mmap(NULL, sizeof *disk.control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        disk.control = map == MAP_FAILED ? NULL : map;
        (void)close(fd);
    }
    if ((trace != NULL && disk.trace < 0) || (control != NULL && disk.control == NULL) ||
        (root != NULL && strlen(root) >= sizeof disk.root)) {
        (void)fprintf(stderr, "disk: cannot be set up: %s\n", strerror(errno));
        abort();
    }
    if (root != NULL) {
        disk.root_size = strlen(root);
        memcpy(disk.root, root, disk.root_size + 1);
    }
    (void)pthread_atfork(lock_all, unlock_all, child_begins);
}

/* ---- Opening and closing ---- */

/* What an open folder is called now: it may have been opened as "store/..", or moved since. */
static const char *real_path_below(int fd)
{
    static char path[PATH_MAX_BYTES];
    char link[64];
    (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    path[size < 0 ? 0 : size] = '\0';
    const char *inside = below_root(path);
    return inside == NULL ? "outside of the root" : inside;
}

static void remember(int fd, const char *path, int flags, bool is_new)
{
    struct stat status;
    if (fd >= FD_MAX || fstat(fd, &status) != 0) {
        (void)fprintf(stderr, "disk: cannot watch %s\n", path);
        abort();
    }
    struct open_file *file = &disk.files[fd];
    file->is_directory = S_ISDIR(status.st_mode);
    file->durable = (flags & O_DSYNC) != 0; /* O_SYNC has that bit, too. */
    file->file = status.st_ino;
    atomic_store(&file->watched, true);
    if (is_new) {
        put_record((struct disk_record){.kind = DISK_CREATE, .file = file->file}, path, NULL, NULL,
                   0);
    } else if ((flags & O_TRUNC) != 0) {
        put_record((struct disk_record){.kind = DISK_TRUNCATE, .file = file->file}, NULL, NULL,
                   NULL, 0);
    }
}

static int open_watched(const char *path, int flags, mode_t mode)
{
    REAL(open);
    const char *inside = below_root(path);
    if (inside == NULL) {
        return real(path, flags, mode);
    }
    note_io();
    if (FAILS(open_errno)) {
        return -1;
    }
    stall(DISK_STALL_WRITES);
    pthread_mutex_lock(&disk.lock);
    bool is_new = (flags & O_CREAT) != 0 && access(path, F_OK) != 0;
    int fd = real(path, flags, mode);
    int code = errno;
    if (fd >= 0) {
        remember(fd, inside, flags, is_new);
    }
    pthread_mutex_unlock(&disk.lock);
    errno = code;
    return fd;
}

EXPORT int open(const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = (flags & O_CREAT) != 0 ? va_arg(arguments, mode_t) : 0;
    va_end(arguments);
    return open_watched(path, flags, mode);
}

EXPORT int open64(const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = (flags & O_CREAT) != 0 ? va_arg(arguments, mode_t) : 0;
    va_end(arguments);
    return open_watched(path, flags, mode);
}

EXPORT int close(int fd)
{
    REAL(close);
    struct open_file *file = watched(fd);
    if (file != NULL) {
        note_io();
        atomic_store(&file->watched, false);
    }
    return real(fd);
}

/* ---- Writing ---- */

/* Before a call that changes things. False: it fails instead. */
static bool change_begins(void)
{
    note_io();
    if (FAILS(write_errno)) {
        return false;
    }
    stall(DISK_STALL_WRITES);
    if (FAILS(write_errno)) { /* What waited on a dying disk. */
        return false;
    }
    pthread_mutex_lock(&disk.lock);
    return true;
}

static ssize_t change_ends(ssize_t result)
{
    int code = errno;
    pthread_mutex_unlock(&disk.lock);
    errno = code;
    return result;
}

static void record_write(const struct open_file *file, off_t offset, ssize_t size,
                         const struct iovec *data, int count)
{
    if (size > 0) {
        put_record((struct disk_record){.kind = DISK_WRITE,
                                        .durable = file->durable,
                                        .file = file->file,
                                        .offset = (uint64_t)offset,
                                        .size = (uint64_t)size},
                   NULL, NULL, data, count);
    }
}

EXPORT ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
    REAL(pwrite);
    const struct open_file *file = watched(fd);
    if (file == NULL) {
        return real(fd, data, size, offset);
    }
    if (!change_begins()) {
        return -1;
    }
    struct iovec part = {(void *)(uintptr_t)data, size};
    ssize_t result = real(fd, data, size, offset);
    record_write(file, offset, result, &part, 1);
    return change_ends(result);
}

EXPORT ssize_t pwrite64(int fd, const void *data, size_t size, off_t offset)
{
    return pwrite(fd, data, size, offset);
}

EXPORT ssize_t write(int fd, const void *data, size_t size)
{
    REAL(write);
    const struct open_file *file = watched(fd);
    if (file == NULL) {
        return real(fd, data, size);
    }
    if (!change_begins()) {
        return -1;
    }
    struct iovec part = {(void *)(uintptr_t)data, size};
    off_t offset = lseek(fd, 0, SEEK_CUR);
    ssize_t result = real(fd, data, size);
    record_write(file, offset, result, &part, 1);
    return change_ends(result);
}

EXPORT ssize_t writev(int fd, const struct iovec *parts, int count)
{
    REAL(writev);
    const struct open_file *file = watched(fd);
    if (file == NULL) {
        return real(fd, parts, count);
    }
    if (!change_begins()) {
        return -1;
    }
    off_t offset = lseek(fd, 0, SEEK_CUR);
    ssize_t result = real(fd, parts, count);
    record_write(file, offset, result, parts, count);
    return change_ends(result);
}

EXPORT ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset)
{
    REAL(pwritev);
    const struct open_file *file = watched(fd);
    if (file == NULL) {
        return real(fd, parts, count, offset);
    }
    if (!change_begins()) {
        return -1;
    }
    ssize_t result = real(fd, parts, count, offset);
    record_write(file, offset, result, parts, count);
    return change_ends(result);
}

EXPORT int ftruncate(int fd, off_t size)
{
    REAL(ftruncate);
    const struct open_file *file = watched(fd);
    if (file == NULL) {
        return real(fd, size);
    }
    if (!change_begins()) {
        return -1;
    }
    int result = real(fd, size);
    if (result == 0) {
        put_record(
            (struct disk_record){.kind = DISK_TRUNCATE, .file = file->file, .size = (uint64_t)size},
            NULL, NULL, NULL, 0);
    }
    return (int)change_ends(result);
}

/* ---- Syncing ---- */

static int sync_watched(int fd, const struct open_file *file, int (*real)(int fd))
{
    note_io();
    stall(DISK_STALL_WRITES);
    if (FAILS(sync_errno)) {
        return -1;
    }
    pthread_mutex_lock(&disk.lock);
    int result = real(fd);
    if (result == 0) {
        struct disk_record record = {.kind = file->is_directory ? DISK_SYNC_DIR : DISK_SYNC,
                                     .file = file->file};
        put_record(record, file->is_directory ? real_path_below(fd) : NULL, NULL, NULL, 0);
    }
    return (int)change_ends(result);
}

EXPORT int fsync(int fd)
{
    REAL(fsync);
    const struct open_file *file = watched(fd);
    return file == NULL ? real(fd) : sync_watched(fd, file, real);
}

EXPORT int fdatasync(int fd)
{
    REAL(fdatasync);
    const struct open_file *file = watched(fd);
    return file == NULL ? real(fd) : sync_watched(fd, file, real);
}

/* ---- Reading ---- */

EXPORT ssize_t pread(int fd, void *data, size_t size, off_t offset)
{
    REAL(pread);
    if (watched(fd) != NULL) {
        note_io();
        stall(DISK_STALL_READS);
        if (FAILS(read_errno)) {
            return -1;
        }
    }
    return real(fd, data, size, offset);
}

EXPORT ssize_t pread64(int fd, void *data, size_t size, off_t offset)
{
    return pread(fd, data, size, offset);
}

EXPORT ssize_t read(int fd, void *data, size_t size)
{
    REAL(read);
    if (watched(fd) != NULL) {
        note_io();
        stall(DISK_STALL_READS);
        if (FAILS(read_errno)) {
            return -1;
        }
    }
    return real(fd, data, size);
}

EXPORT void *mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset)
{
    REAL(mmap);
    const struct open_file *file = watched(fd);
    if (file != NULL && (flags & MAP_SHARED) != 0 && (protection & PROT_WRITE) != 0) {
        pthread_mutex_lock(&disk.lock);
        put_record((struct disk_record){.kind = DISK_MAP, .file = file->file}, NULL, NULL, NULL, 0);
        pthread_mutex_unlock(&disk.lock);
    }
    return real(address, size, protection, flags, fd, offset);
}

/* ---- Names ---- */

static int name_call_ends(int result, enum disk_kind kind, const char *path, const char *path2)
{
    int code = errno;
    if (result == 0) {
        put_record((struct disk_record){.kind = (uint32_t)kind}, path, path2, NULL, 0);
    }
    errno = code;
    return (int)change_ends(result);
}

EXPORT int rename(const char *from, const char *to)
{
    REAL(rename);
    const char *inside = below_root(from);
    if (inside == NULL) {
        return real(from, to);
    }
    if (!change_begins()) {
        return -1;
    }
    return name_call_ends(real(from, to), DISK_RENAME, inside, below_root(to));
}

EXPORT int unlink(const char *path)
{
    REAL(unlink);
    const char *inside = below_root(path);
    if (inside == NULL) {
        return real(path);
    }
    if (!change_begins()) {
        return -1;
    }
    return name_call_ends(real(path), DISK_UNLINK, inside, NULL);
}

EXPORT int rmdir(const char *path)
{
    REAL(rmdir);
    const char *inside = below_root(path);
    if (inside == NULL) {
        return real(path);
    }
    if (!change_begins()) {
        return -1;
    }
    return name_call_ends(real(path), DISK_UNLINK, inside, NULL);
}

EXPORT int mkdir(const char *path, mode_t mode)
{
    REAL(mkdir);
    const char *inside = below_root(path);
    if (inside == NULL) {
        return real(path, mode);
    }
    if (!change_begins()) {
        return -1;
    }
    return name_call_ends(real(path, mode), DISK_MKDIR, inside, NULL);
}

/* ---- Loops, and the map ---- */

static void note_loop(void)
{
    struct disk_thread *thread = thread_of_caller();
    if (thread != NULL) {
        atomic_store(&thread->is_loop, 1);
    }
}

EXPORT int epoll_wait(int fd, struct epoll_event *events, int count, int timeout)
{
    REAL(epoll_wait);
    note_loop();
    return real(fd, events, count, timeout);
}

EXPORT int epoll_pwait(int fd, struct epoll_event *events, int count, int timeout,
                       const sigset_t *mask)
{
    REAL(epoll_pwait);
    note_loop();
    return real(fd, events, count, timeout, mask);
}

/* What LMDB reads is its map: a page that is not in memory is a read of the disk. */
static void touch_map(void)
{
    struct disk_thread *thread = thread_of_caller();
    if (thread != NULL) {
        (void)atomic_fetch_add(&thread->map, 1);
        (void)atomic_fetch_add(&thread->map_as_loop, atomic_load(&thread->is_loop));
    }
    stall(DISK_STALL_READS);
}

EXPORT int mdb_txn_begin(MDB_env *env, MDB_txn *parent, unsigned flags, MDB_txn **txn)
{
    REAL(mdb_txn_begin);
    touch_map();
    return real(env, parent, flags, txn);
}

EXPORT int mdb_txn_commit(MDB_txn *txn)
{
    REAL(mdb_txn_commit);
    touch_map();
    return real(txn);
}

EXPORT int mdb_get(MDB_txn *txn, MDB_dbi dbi, MDB_val *key, MDB_val *value)
{
    REAL(mdb_get);
    touch_map();
    return real(txn, dbi, key, value);
}

EXPORT int mdb_put(MDB_txn *txn, MDB_dbi dbi, MDB_val *key, MDB_val *value, unsigned flags)
{
    REAL(mdb_put);
    touch_map();
    return real(txn, dbi, key, value, flags);
}

EXPORT int mdb_del(MDB_txn *txn, MDB_dbi dbi, MDB_val *key, MDB_val *value)
{
    REAL(mdb_del);
    touch_map();
    return real(txn, dbi, key, value);
}

EXPORT int mdb_cursor_get(MDB_cursor *cursor, MDB_val *key, MDB_val *value, MDB_cursor_op op)
{
    REAL(mdb_cursor_get);
    touch_map();
    return real(cursor, key, value, op);
}

EXPORT int mdb_stat(MDB_txn *txn, MDB_dbi dbi, MDB_stat *stat)
{
    REAL(mdb_stat);
    touch_map();
    return real(txn, dbi, stat);
}

EXPORT int mdb_env_copy2(MDB_env *env, const char *path, unsigned flags)
{
    REAL(mdb_env_copy2);
    touch_map();
    return real(env, path, flags);
}

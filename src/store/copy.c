#include "store/copy.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"
#include "base/signals.h"

enum {
    PART_BYTES = 256 << 10, /* Read and written at once; on the thread's stack. */
    SYNC_BYTES = 16 << 20, /* Written before it is synced: no flood of dirty pages delays others. */
};

/* ---- Writing ---- */

/* A file that is written once, in order, and not read soon. */
struct output {
    int fd;
    uint64_t bytes;
    uint64_t synced_bytes;
};

static enum hashtrie_status output_sync(struct output *output)
{
    if (fdatasync(output->fd) != 0) {
        return env_status(errno);
    }
    (void)posix_fadvise(output->fd, 0, 0, POSIX_FADV_DONTNEED); /* The store's own pages stay. */
    output->synced_bytes = output->bytes;
    return HASHTRIE_OK;
}

static enum hashtrie_status output_write(struct output *output, const char *bytes, size_t size)
{
    while (size > 0) {
        ssize_t written = write(output->fd, bytes, size);
        if (written < 0 && errno == EINTR) {
            continue;
        }
        if (written <= 0) {
            return written == 0 ? HASHTRIE_EIO : env_status(errno);
        }
        bytes += written;
        size -= (size_t)written;
        output->bytes += (uint64_t)written;
    }
    return output->bytes - output->synced_bytes >= SYNC_BYTES ? output_sync(output) : HASHTRIE_OK;
}

/* From `from` to its end. EBUSY: on_bytes wants no more. */
static enum hashtrie_status pour(int from, struct output *output, copy_on_bytes *on_bytes,
                                 void *user)
{
    char part[PART_BYTES];
    enum hashtrie_status status = HASHTRIE_OK;
    while (status == HASHTRIE_OK) {
        ssize_t size = read(from, part, sizeof part);
        if (size == 0) {
            return output_sync(output);
        }
        if (size < 0) {
            status = errno == EINTR ? HASHTRIE_OK : env_status(errno);
            continue;
        }
        status = output_write(output, part, (size_t)size);
        if (status == HASHTRIE_OK && on_bytes != NULL && !on_bytes(user, output->bytes)) {
            status = HASHTRIE_EBUSY;
        }
    }
    return status;
}

enum hashtrie_status copy_file(int from, int to, copy_on_bytes *on_bytes, void *user)
{
    struct stat file;
    if (fstat(from, &file) != 0) {
        return env_status(errno);
    }
    struct output output = {.fd = to};
    enum hashtrie_status status = pour(from, &output, on_bytes, user);
    if (status == HASHTRIE_OK && output.bytes < (uint64_t)file.st_size) {
        status = HASHTRIE_ECORRUPT;
    }
    return status;
}

/* ---- An environment ---- */

static void *drain_main(void *user)
{
    struct copy *copy = user;
    struct output output = {.fd = copy->file};
    copy->drained = pour(copy->source, &output, copy->on_bytes, copy->user);
    copy->bytes = output.bytes;
    if (copy->drained != HASHTRIE_OK) {
        copy_stop(copy, copy->drained);
    }
    return NULL;
}

/* The drain gets no signals: they are for the program's own threads. */
static bool start_drain(struct copy *copy)
{
    sigset_t before;
    signals_block(&before);
    bool started = pthread_create(&copy->drain, NULL, drain_main, copy) == 0;
    CHECK(pthread_sigmask(SIG_SETMASK, &before, NULL) == 0);
    return started;
}

enum hashtrie_status copy_open(struct copy *copy, int file, copy_on_bytes *on_bytes, void *user)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
        return env_status(errno);
    }
    *copy = (struct copy){
        .file = file, .source = ends[0], .sink = ends[1], .on_bytes = on_bytes, .user = user};
    if (!start_drain(copy)) {
        (void)close(ends[0]); /* Nothing was written. */
        (void)close(ends[1]);
        return HASHTRIE_ENOMEM;
    }
    return HASHTRIE_OK;
}

enum hashtrie_status copy_run(struct copy *copy, const struct env *env)
{
    return env_status(mdb_env_copyfd2(env->mdb, copy->sink, MDB_CP_COMPACT));
}

void copy_stop(struct copy *copy, enum hashtrie_status why)
{
    REQUIRE(why != HASHTRIE_OK);
    int none = HASHTRIE_OK;
    (void)atomic_compare_exchange_strong(&copy->stopped, &none, (int)why);
    (void)shutdown(copy->sink, SHUT_RDWR); /* Ends LMDB's writes, and what the drain waits for. */
}

enum hashtrie_status copy_close(struct copy *copy, enum hashtrie_status status)
{
    (void)shutdown(copy->sink, SHUT_WR); /* The drain has its end. */
    CHECK(pthread_join(copy->drain, NULL) == 0);
    (void)close(copy->sink); /* A socket: closing loses nothing that was not read. */
    (void)close(copy->source);
    enum hashtrie_status stopped = (enum hashtrie_status)atomic_load(&copy->stopped);
    if (stopped != HASHTRIE_OK) {
        return stopped;
    }
    return status != HASHTRIE_OK ? status : copy->drained;
}

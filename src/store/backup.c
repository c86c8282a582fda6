/* Copies of a store and back, for tools: by path, without a router of one's own. */
#include "store/backup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hashtrie/store.h"

#include "base/check.h"
#include "base/clock.h"
#include "store/copy.h"
#include "store/env.h"
#include "store/snapshot.h"

enum {
    FILE_MODE = 0600,
    SPARE_PARTS = 32, /* A copy ends with 1/32 of the map's pages left. */
    LOOK_MS = 50,     /* How often it looks. */
};

struct progress {
    const struct hashtrie_copy_options *options;
    struct copy *copy;     /* Of an environment; NULL: of a file. */
    const struct env *env; /* Watched: how many pages its writer has left. */
    uint64_t txn;          /* That the copy reads, or an earlier one. */
    uint64_t looked_ns;
    uint64_t before; /* Bytes done by earlier steps. */
    uint64_t total;
    uint64_t bytes;
};

static void tell(const struct progress *progress, uint64_t done)
{
    const struct hashtrie_copy_options *options = progress->options;
    if (options != NULL && options->on_progress != NULL) {
        done = done < progress->total ? done : progress->total;
        options->on_progress(options->user, done, progress->total);
    }
}

static bool on_bytes(void *user, uint64_t bytes)
{
    struct progress *progress = user;
    progress->bytes = bytes;
    tell(progress, progress->before + bytes);
    return true;
}

/* Besides, leaves the router that writes this store enough pages. */
static bool on_copied_bytes(void *user, uint64_t bytes)
{
    struct progress *progress = user;
    const struct env *env = progress->env;
    uint64_t spare = 0;
    uint64_t now_ns = clock_monotonic_ns();
    (void)on_bytes(user, bytes); /* Always true. */
    if (now_ns < progress->looked_ns + LOOK_MS * CLOCK_NS_PER_MS) {
        return true;
    }
    progress->looked_ns = now_ns;
    if (env_spare_pages(env, progress->txn, &spare) == HASHTRIE_OK &&
        spare < env->map_bytes / env->page_bytes / SPARE_PARTS) {
        copy_stop(progress->copy, HASHTRIE_EFULL);
    }
    return true;
}

/* What the copy will come to, and the transaction that it will read, or one just before. */
static enum hashtrie_status look_at(const struct env *env, struct progress *progress)
{
    MDB_txn *txn = NULL;
    uint64_t pages = 0;
    enum hashtrie_status status = env_status(mdb_txn_begin(env->mdb, NULL, MDB_RDONLY, &txn));
    if (status != HASHTRIE_OK) {
        return status;
    }
    status = env_used_pages(env, txn, &pages);
    progress->txn = mdb_txn_id(txn);
    progress->total = pages * env->page_bytes;
    mdb_txn_abort(txn);
    return status;
}

static enum hashtrie_status copy_into(const struct env *env, int file, struct progress *progress)
{
    struct copy copy;
    progress->copy = &copy; /* cppcheck-suppress autoVariables ; until the end of this function. */
    progress->env = env;
    enum hashtrie_status status = look_at(env, progress);
    if (status == HASHTRIE_OK) {
        status = copy_open(&copy, file, on_copied_bytes, progress);
    }
    if (status == HASHTRIE_OK) {
        status = copy_close(&copy, copy_run(&copy, env));
    }
    progress->copy = NULL;
    return status;
}

/* It went well. */
static void note_result(struct progress *progress, uint64_t start_ns,
                        struct hashtrie_copy_result *out)
{
    progress->total = progress->before + progress->bytes; /* Before it was an estimate. */
    tell(progress, progress->total);
    uint64_t took_ns = clock_monotonic_ns() - start_ns;
    *out = (struct hashtrie_copy_result){.bytes = progress->bytes,
                                         .seconds = (double)took_ns / (double)CLOCK_NS_PER_S};
}

enum hashtrie_status hashtrie_store_copy(const char *directory, const char *snapshot,
                                         const struct hashtrie_copy_options *options,
                                         struct hashtrie_copy_result *out)
{
    REQUIRE(directory != NULL && snapshot != NULL && out != NULL);
    uint64_t start_ns = clock_monotonic_ns();
    struct progress progress = {.options = options};
    struct env env;
    bool lockless = false;
    enum hashtrie_status status = env_open_readonly(&env, directory, &lockless);
    if (status != HASHTRIE_OK) {
        return status;
    }
    struct snapshot_part part;
    status = snapshot_begin(snapshot, &part);
    if (status == HASHTRIE_OK) {
        status = snapshot_end(&part, copy_into(&env, part.file, &progress));
    }
    env_close(&env);
    if (status == HASHTRIE_OK) {
        note_result(&progress, start_ns, out);
    }
    return status;
}

/* ---- Back ---- */

static void on_verified(void *user, uint64_t done, uint64_t total)
{
    struct progress *progress = user;
    progress->before =
        total == 0 ? 0 : (uint64_t)((double)progress->total / 2 * (double)done / (double)total);
    tell(progress, progress->before);
}

/* Progress: the first half. */
static enum hashtrie_status verify(const char *snapshot, struct progress *progress)
{
    struct hashtrie_reader *reader = NULL;
    enum hashtrie_status status = hashtrie_reader_open(snapshot, &reader);
    if (status != HASHTRIE_OK) {
        return status;
    }
    progress->total = env_file_bytes(snapshot) * 2;
    struct hashtrie_verify_options options = {.on_progress = on_verified, .user = progress};
    struct hashtrie_verify_result result;
    status = hashtrie_reader_verify(reader, &options, &result);
    hashtrie_reader_close(reader);
    progress->before = progress->total / 2; /* Of a file that is copied as it is. */
    return status == HASHTRIE_OK && result.damage_count > 0 ? HASHTRIE_ECORRUPT : status;
}

/* A store that root restores is for the router, which runs as the folder's owner. */
static void give_to_owner(int file, const char *directory)
{
    struct stat folder;
    if (geteuid() == 0 && stat(directory, &folder) == 0) {
        (void)!fchown(file, folder.st_uid, folder.st_gid); /* Not every file system can. */
    }
}

/* The new file is ours alone: root may do this in a folder of somebody else's. */
static enum hashtrie_status copy_path(const char *from_path, const char *to_path,
                                      const char *directory, struct progress *progress)
{
    int from = open(from_path, O_RDONLY | O_CLOEXEC);
    if (from < 0) {
        return env_status(errno);
    }
    enum hashtrie_status status = HASHTRIE_OK;
    (void)unlink(to_path); /* Left by one that was killed; mostly there is none. */
    int to = open(to_path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, FILE_MODE);
    if (to < 0) {
        status = env_status(errno);
        goto close_from;
    }
    give_to_owner(to, directory);
    status = copy_file(from, to, on_bytes, progress);
    (void)close(to); /* Synced. */
close_from:
    (void)close(from);
    return status;
}

/* Whole by its new name, so that what a crash leaves can be told from what is half written. */
static enum hashtrie_status name_whole(const char *directory)
{
    char part[ENV_PATH_BYTES_MAX];
    char whole[ENV_PATH_BYTES_MAX];
    if (!env_path(part, directory, BACKUP_PART) || !env_path(whole, directory, BACKUP_WHOLE)) {
        return HASHTRIE_EINVAL;
    }
    return rename(part, whole) == 0 ? HASHTRIE_OK : env_status(errno);
}

enum hashtrie_status backup_put_in_place(const char *directory, int directory_fd,
                                         char aside[ENV_PATH_BYTES_MAX])
{
    enum hashtrie_status status = name_whole(directory);
    if (status == HASHTRIE_OK) {
        status = env_move_aside(directory, aside);
        status = status == HASHTRIE_ENOENT ? HASHTRIE_OK : status;
    }
    if (status == HASHTRIE_OK) {
        status = backup_end(directory);
    }
    if (status == HASHTRIE_OK && fsync(directory_fd) != 0) {
        status = env_status(errno);
    }
    return status;
}

enum hashtrie_status backup_end(const char *directory)
{
    char part[ENV_PATH_BYTES_MAX];
    char whole[ENV_PATH_BYTES_MAX];
    char data[ENV_PATH_BYTES_MAX];
    if (!env_path(part, directory, BACKUP_PART) || !env_path(whole, directory, BACKUP_WHOLE) ||
        !env_path(data, directory, "data.mdb")) {
        return HASHTRIE_EINVAL;
    }
    (void)unlink(part); /* It takes space, no more; mostly there is none. */
    if (access(data, F_OK) == 0) {
        (void)unlink(whole);
        return HASHTRIE_OK;
    }
    return rename(whole, data) == 0 || errno == ENOENT ? HASHTRIE_OK : env_status(errno);
}

static enum hashtrie_status fetch(const char *snapshot, const char *directory,
                                  struct progress *progress)
{
    char from[ENV_PATH_BYTES_MAX];
    char part[ENV_PATH_BYTES_MAX];
    if (!env_path(from, snapshot, "data.mdb") || !env_path(part, directory, BACKUP_PART)) {
        return HASHTRIE_EINVAL;
    }
    enum hashtrie_status status = copy_path(from, part, directory, progress);
    if (status != HASHTRIE_OK) {
        (void)unlink(part); /* It takes space, no more. */
    }
    return status;
}

enum hashtrie_status backup_fetch(const char *snapshot, const char *directory,
                                  const struct hashtrie_copy_options *options)
{
    struct progress progress = {.options = options};
    enum hashtrie_status status = verify(snapshot, &progress);
    return status == HASHTRIE_OK ? fetch(snapshot, directory, &progress) : status;
}

enum hashtrie_status hashtrie_snapshot_restore(const char *snapshot, const char *directory,
                                               const struct hashtrie_copy_options *options,
                                               struct hashtrie_copy_result *out)
{
    REQUIRE(snapshot != NULL && directory != NULL && out != NULL);
    uint64_t start_ns = clock_monotonic_ns();
    struct progress progress = {.options = options};
    int directory_fd = -1;
    enum hashtrie_status status = verify(snapshot, &progress);
    if (status == HASHTRIE_OK) {
        status = env_directory_open(directory, &directory_fd);
    }
    if (status != HASHTRIE_OK) {
        return status;
    }
    char aside[ENV_PATH_BYTES_MAX];
    status = fetch(snapshot, directory, &progress);
    if (status == HASHTRIE_OK) {
        status = backup_put_in_place(directory, directory_fd, aside);
    }
    (void)close(directory_fd); /* Gives the lock up. */
    if (status == HASHTRIE_OK) {
        note_result(&progress, start_ns, out);
    }
    return status;
}

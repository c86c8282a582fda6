/*
 * Looking at a file before it is opened, and putting another one in its place if it is damaged:
 *
 *     the newest snapshot that verifies -> what can be read of it -> an empty one
 *
 * Writer thread, while the environment is closed. What may crash is done in a child.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "hashtrie/maintenance.h"

#include "base/check.h"
#include "base/clock.h"
#include "store/backup.h"
#include "store/folder.h"
#include "store/internal.h"
#include "store/mark.h"
#include "store/probe.h"
#include "store/snapshot.h"

enum {
    CRASHES_MAX = 2, /* So many, one run after the other, and the file is replaced. */
    SAMPLE_CPU_S = 10,
    ALL_CPU_S = 120, /* And a second for each MiB: some 300 times what it takes. */
    MIB_BITS = 20,
    TELL_S = 5,
    SNAPSHOTS_MAX = 8, /* Tried. */
    SOUND_S = 600,     /* A run that has lasted so long forgives the crash before it. */
};

/* ---- Jobs ---- */

struct watch {
    struct hashtrie_store *store;
    const char *doing;
    uint64_t told_ns;
};

static bool on_progress(void *owner, uint64_t done, uint64_t total)
{
    struct watch *watch = owner;
    uint64_t now_ns = clock_monotonic_ns();
    if (now_ns >= watch->told_ns + TELL_S * CLOCK_NS_PER_S) {
        watch->told_ns = now_ns;
        store_event(watch->store, HASHTRIE_EVENT_INFO, "%s: %" PRIu64 " %%", watch->doing,
                    total == 0 ? 0 : (done < total ? done : total) * 100 / total);
    }
    return !store_stopping(watch->store);
}

/* Status of the work. ECORRUPT also: it has crashed. EIO: it was killed, as for want of memory.
 * EBUSY: the store closes. */
static enum hashtrie_status run(struct hashtrie_store *store, const char *doing,
                                enum hashtrie_status (*work)(void *user, struct child_line *line),
                                void *user, uint32_t cpu_seconds)
{
    struct watch watch = {.store = store, .doing = doing, .told_ns = clock_monotonic_ns()};
    struct child_job job = {.work = work,
                            .user = user,
                            .cpu_seconds_max = cpu_seconds,
                            .on_progress = on_progress,
                            .owner = &watch};
    enum hashtrie_status status = HASHTRIE_EBUSY;
    switch (child_run(&job, &status)) {
    case CHILD_ENDED:
        return status;
    case CHILD_CRASHED:
        return HASHTRIE_ECORRUPT;
    case CHILD_NONE:
        store_event(store, HASHTRIE_EVENT_WARNING, "%s: no process can be made for it", doing);
        return HASHTRIE_ENOMEM;
    case CHILD_KILLED:
    default:
        if (store_stopping(store)) {
            return HASHTRIE_EBUSY;
        }
        store_event(store, HASHTRIE_EVENT_WARNING, "%s: its process was killed", doing);
        return HASHTRIE_EIO;
    }
}

static uint32_t all_cpu_seconds(const char *directory)
{
    return (uint32_t)(ALL_CPU_S + (env_file_bytes(directory) >> MIB_BITS));
}

/* ---- Replacing ---- */

static void tell_recovery(struct hashtrie_store *store, enum hashtrie_recovery how, const char *why,
                          const char *aside, const char *instead)
{
    counter_add(&store->counters.recovered[how], 1);
    store_event(store, HASHTRIE_EVENT_ERROR,
                "the store's file could not be used (%s): it is now %s, and %s takes its place",
                why, aside, instead);
}

struct fetch {
    const char *snapshot;
    const char *directory;
    size_t chunk_size;
};

static enum hashtrie_status work_fetch(void *user, struct child_line *line)
{
    const struct fetch *job = user;
    struct hashtrie_reader *reader = NULL;
    struct hashtrie_reader_info info;
    (void)line; /* Nobody is waiting for a number: it takes seconds. */
    enum hashtrie_status status = hashtrie_reader_open(job->snapshot, &reader);
    if (status != HASHTRIE_OK) {
        return status;
    }
    status = hashtrie_reader_get_info(reader, &info);
    hashtrie_reader_close(reader);
    if (status == HASHTRIE_OK && info.chunk_size != job->chunk_size) {
        status = HASHTRIE_EVERSION;
    }
    return status == HASHTRIE_OK ? backup_fetch(job->snapshot, job->directory, NULL) : status;
}

/* A snapshot is at BACKUP_PART; `name` gets its name. */
static bool fetch_snapshot(struct hashtrie_store *store, struct snapshot_name *name)
{
    const char *directory = store->snapshots.directory;
    struct snapshot_list list;
    if (directory == NULL || snapshot_list(directory, &list) != HASHTRIE_OK) {
        return false;
    }
    size_t count = list.count < SNAPSHOTS_MAX ? list.count : SNAPSHOTS_MAX;
    for (size_t i = 0; i < count; i++) {
        char path[ENV_PATH_BYTES_MAX];
        struct fetch job = {
            .snapshot = path, .directory = store->directory, .chunk_size = store->chunk_size};
        if (!env_path(path, directory, list.names[i].text)) {
            return false;
        }
        enum hashtrie_status status =
            run(store, "looking at a snapshot", work_fetch, &job, all_cpu_seconds(path));
        if (status == HASHTRIE_OK) {
            *name = list.names[i];
            return true;
        }
        store_event(store, HASHTRIE_EVENT_WARNING, "%s is of no use: %s", path,
                    hashtrie_strerror(status));
    }
    return false;
}

struct repairing {
    const char *directory;
    const char *out_directory;
    size_t chunk_size;
};

static void on_repaired(void *user, uint64_t done, uint64_t total)
{
    child_tell(user, done, total);
}

static enum hashtrie_status work_repair(void *user, struct child_line *line)
{
    const struct repairing *job = user;
    struct hashtrie_repair_options options = {
        .chunk_size = job->chunk_size, .on_progress = on_repaired, .user = line};
    struct hashtrie_repair_result result;
    enum hashtrie_status status =
        hashtrie_store_repair(job->directory, job->out_directory, &options, &result);
    bool nothing = result.node_count == 0 && result.endpoint_count == 0;
    return status == HASHTRIE_OK && nothing ? HASHTRIE_ENOENT : status;
}

/* What can be read of the file is at BACKUP_PART. */
static bool fetch_repaired(struct hashtrie_store *store)
{
    char out[ENV_PATH_BYTES_MAX];
    char from[ENV_PATH_BYTES_MAX];
    char part[ENV_PATH_BYTES_MAX];
    if (!env_path(out, store->directory, "repaired") || !env_path(from, out, "data.mdb") ||
        !env_path(part, store->directory, BACKUP_PART)) {
        return false;
    }
    struct repairing job = {
        .directory = store->directory, .out_directory = out, .chunk_size = store->chunk_size};
    folder_remove(out);
    enum hashtrie_status status =
        run(store, "repairing the store", work_repair, &job, all_cpu_seconds(store->directory));
    bool good = status == HASHTRIE_OK && rename(from, part) == 0;
    folder_remove(out);
    return good;
}

static enum hashtrie_status replace_by_empty(struct hashtrie_store *store, const char *why)
{
    char aside[ENV_PATH_BYTES_MAX];
    enum hashtrie_status status = env_move_aside(store->directory, aside);
    if (status == HASHTRIE_OK) {
        tell_recovery(store, HASHTRIE_RECOVERED_EMPTY, why, aside, "an empty one");
    }
    return status;
}

enum hashtrie_status store_replace(struct hashtrie_store *store, const char *why, bool salvage)
{
    char aside[ENV_PATH_BYTES_MAX];
    struct snapshot_name snapshot;
    bool children = salvage && store->check_in_child;
    bool found = children && fetch_snapshot(store, &snapshot);
    bool repaired = children && !found && fetch_repaired(store);
    if (store_stopping(store)) {
        return HASHTRIE_EBUSY; /* The next run does it. */
    }
    if (!found && !repaired) {
        return replace_by_empty(store, why);
    }
    enum hashtrie_status status = backup_put_in_place(store->directory, store->directory_fd, aside);
    if (status == HASHTRIE_OK && found) {
        tell_recovery(store, HASHTRIE_RECOVERED_SNAPSHOT, why, aside, snapshot.text);
    } else if (status == HASHTRIE_OK) {
        tell_recovery(store, HASHTRIE_RECOVERED_REPAIRED, why, aside, "what can be read of it");
    }
    return status;
}

/* ---- Looking ---- */

/* OK: the file can be opened. ECORRUPT: it is damaged. */
static enum hashtrie_status check(struct hashtrie_store *store, bool all)
{
    struct probe probe = {.directory = store->directory,
                          .chunk_size = store->chunk_size,
                          .map_bytes = store->cap_bytes};
    if (!store->check_in_child) {
        return HASHTRIE_OK;
    }
    if (all) {
        store_event(store, HASHTRIE_EVENT_WARNING,
                    "the last run ended in a crash: the store is verified first");
    }
    enum hashtrie_status status =
        all ? run(store, "verifying the store", probe_all, &probe,
                  all_cpu_seconds(store->directory))
            : run(store, "looking at the store", probe_sample, &probe, SAMPLE_CPU_S);
    if (status == HASHTRIE_EVERSION || status == HASHTRIE_ENOENT || status == HASHTRIE_ENOMEM) {
        return HASHTRIE_OK; /* Opening it will tell. */
    }
    return status;
}

enum hashtrie_status store_inspect(struct hashtrie_store *store)
{
    bool again = store->inspected;
    struct mark mark = {.clean = !store->suspect, .crashes = store->crashes};
    enum hashtrie_status status = backup_end(store->directory);
    if (status != HASHTRIE_OK || env_file_bytes(store->directory) == 0) {
        return status;
    }
    if (!again) {
        mark = mark_read(store->directory);
        store->crashes = mark.crashes;
    }
    const char *why = store->damage;
    if (why == NULL && !again && mark.crashes >= CRASHES_MAX) {
        why = "the last two runs with it ended in a crash";
    }
    if (why == NULL && !mark.clean) {
        status = check(store, !again && mark.crashes > 0);
        why = status == HASHTRIE_ECORRUPT ? "it is damaged" : NULL;
    }
    if (why != NULL) {
        status = store_replace(store, why, true);
        store->crashes = 0;
    }
    if (status == HASHTRIE_OK) {
        store->damage = NULL;
        store->suspect = false;
        store->inspected = true;
    }
    return status;
}

/* ---- The mark ---- */

static void forget_mark(struct hashtrie_store *store)
{
    if (store->crash_mark != NULL) {
        store->crash_mark->fd = -1;
    }
    if (store->mark_fd >= 0) {
        (void)close(store->mark_fd); /* The line was written whole, or not. */
        store->mark_fd = -1;
    }
}

void store_mark_open(struct hashtrie_store *store)
{
    forget_mark(store);
    mark_open(store->directory, store->crashes, &store->mark_fd);
    if (store->crash_mark != NULL) {
        store->crash_mark->fd = store->mark_fd;
    }
}

void store_mark_closed(struct hashtrie_store *store, bool clean)
{
    forget_mark(store);
    if (clean) {
        mark_close(store->directory);
    }
}

void store_mark_look(struct hashtrie_store *store)
{
    if (store->crashes > 0 && store->env.mdb != NULL &&
        clock_monotonic_ns() > store->open_start_ns + SOUND_S * CLOCK_NS_PER_S) {
        store->crashes = 0;
        store_mark_open(store);
    }
}

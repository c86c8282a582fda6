#include "store/build.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "base/check.h"
#include "store/folder.h"

enum {
    ROWS_PER_TXN = 2000,
    ROOM_BYTES = 128 << 20, /* Of map beyond what is used: more than one transaction may touch. */
    FINISH_BYTES = 1 << 20, /* The same, of the last one. */
    LIMIT_PERCENT = 80,     /* Of the cap, as the router's writer keeps it. */
};

static const char unfinished_name[] = "unfinished";

static void close_all(struct build *build)
{
    if (build->txn != NULL) {
        mdb_txn_abort(build->txn);
        build->txn = NULL;
    }
    env_close(&build->env);
}

static void unlock(struct build *build)
{
    (void)close(build->directory_fd); /* Gives the lock back. */
}

void build_abandon(struct build *build)
{
    close_all(build);
    if (build->fresh) {
        folder_remove(build->folder);
    }
    unlock(build);
}

/* Begins a transaction; the map is larger than what is used by `room` at least. */
static enum hashtrie_status begin(struct build *build, uint64_t room)
{
    MDB_envinfo info;
    enum hashtrie_status status = env_status(mdb_env_info(build->env.mdb, &info));
    if (status != HASHTRIE_OK) {
        return status;
    }
    uint64_t needed = ((uint64_t)info.me_last_pgno + 1) * build->env.page_bytes + room;
    uint64_t map = needed > build->map_bytes ? needed : build->map_bytes;
    if (info.me_mapsize != map) {
        status = env_status(mdb_env_set_mapsize(build->env.mdb, map));
    }
    return status == HASHTRIE_OK ? env_status(mdb_txn_begin(build->env.mdb, NULL, 0, &build->txn))
                                 : status;
}

static enum hashtrie_status put_meta(struct build *build)
{
    const struct {
        enum meta_field field;
        uint64_t number;
    } fields[] = {
        {META_NEXT_ENDPOINT_ID, build->next_endpoint_id},
        {META_NEWEST_BUCKET, build->newest_bucket},
        {META_CHUNK_COUNT, build->chunk_count},
        {META_LAST_CHECKPOINT_MS, build->last_checkpoint_ms},
    };
    enum hashtrie_status status = HASHTRIE_OK;
    for (size_t i = 0; i < sizeof fields / sizeof *fields && status == HASHTRIE_OK; i++) {
        status = env_meta_put(&build->env, build->txn, fields[i].field, fields[i].number);
    }
    return status;
}

static enum hashtrie_status commit(struct build *build)
{
    MDB_txn *txn = build->txn;
    if (txn == NULL) {
        return HASHTRIE_OK;
    }
    enum hashtrie_status status = put_meta(build);
    build->txn = NULL;
    build->rows_in_txn = 0;
    if (status != HASHTRIE_OK) {
        mdb_txn_abort(txn);
        return status;
    }
    return env_status(mdb_txn_commit(txn));
}

static enum hashtrie_status check_limit(struct build *build)
{
    uint64_t pages = 0;
    enum hashtrie_status status =
        build->limit_pages == 0 ? HASHTRIE_OK : env_used_pages(&build->env, build->txn, &pages);
    return status == HASHTRIE_OK && pages > build->limit_pages ? HASHTRIE_EFULL : status;
}

enum hashtrie_status build_ready(struct build *build)
{
    enum hashtrie_status status = HASHTRIE_OK;
    if (build->rows_in_txn >= ROWS_PER_TXN) {
        status = commit(build);
    }
    if (status == HASHTRIE_OK && build->txn == NULL) {
        status = begin(build, ROOM_BYTES);
    }
    build->rows_in_txn++;
    return status == HASHTRIE_OK ? check_limit(build) : status;
}

/* What an existing store goes on from. */
static enum hashtrie_status read_figures(struct build *build)
{
    const struct {
        enum meta_field field;
        uint64_t *number;
    } fields[] = {
        {META_NEXT_ENDPOINT_ID, &build->next_endpoint_id},
        {META_NEWEST_BUCKET, &build->newest_bucket},
        {META_CHUNK_COUNT, &build->chunk_count},
        {META_LAST_CHECKPOINT_MS, &build->last_checkpoint_ms},
    };
    enum hashtrie_status status = begin(build, ROOM_BYTES);
    for (size_t i = 0; i < sizeof fields / sizeof *fields && status == HASHTRIE_OK; i++) {
        status = env_meta_get(&build->env, build->txn, fields[i].field, fields[i].number);
    }
    if (status == HASHTRIE_OK) {
        status = row_next_number(&build->env, build->txn, &build->next_row);
    }
    if (status == HASHTRIE_OK) {
        status = env_entries(&build->env, build->txn, DB_EDGES, &build->node_count);
    }
    return status == HASHTRIE_ENOENT ? HASHTRIE_ECORRUPT : status;
}

static enum hashtrie_status open_env(struct build *build, uint64_t chunk_size)
{
    enum hashtrie_status status =
        env_open(&build->env, build->folder, build->map_bytes, chunk_size);
    if (status == HASHTRIE_OK && build->fresh) {
        status = env_status(mdb_env_set_flags(build->env.mdb, MDB_NOSYNC, 1));
    }
    return status == HASHTRIE_OK ? read_figures(build) : status;
}

enum hashtrie_status build_open(struct build *build, const char *directory, uint64_t map_bytes,
                                uint64_t chunk_size)
{
    *build = (struct build){.directory = directory, .map_bytes = map_bytes};
    enum hashtrie_status status = env_directory_open(directory, &build->directory_fd);
    if (status != HASHTRIE_OK) {
        return status;
    }
    build->fresh = env_file_bytes(directory) == 0;
    build->folder = build->fresh ? build->unfinished : directory;
    if (!env_path(build->unfinished, directory, unfinished_name)) {
        unlock(build);
        return HASHTRIE_EINVAL;
    }
    if (build->fresh) {
        folder_remove(build->folder); /* Of one that was killed. */
        status = folder_make(build->folder);
    }
    status = status == HASHTRIE_OK ? open_env(build, chunk_size) : status;
    if (status != HASHTRIE_OK) {
        build_abandon(build);
        return status;
    }
    build->limit_pages = map_bytes / build->env.page_bytes * LIMIT_PERCENT / 100;
    return HASHTRIE_OK;
}

enum hashtrie_status build_create(struct build *build, const char *directory, uint64_t map_bytes,
                                  uint64_t chunk_size)
{
    int fd = -1;
    enum hashtrie_status status = env_directory_open(directory, &fd);
    if (status != HASHTRIE_OK) {
        return status;
    }
    bool there = env_file_bytes(directory) > 0;
    (void)close(fd); /* Gives the lock back. */
    status = there ? HASHTRIE_EEXIST : build_open(build, directory, map_bytes, chunk_size);
    if (status == HASHTRIE_OK) {
        build->limit_pages = 0;
    }
    return status;
}

enum hashtrie_status build_put(struct build *build, const struct trie_record *record)
{
    REQUIRE(build->txn != NULL);
    struct row old = {0};
    enum hashtrie_status status =
        row_find(&build->env, build->txn, record->prefix, record->fp, NULL, &old);
    if (status == HASHTRIE_OK) {
        status = row_delete(&build->env, build->txn, old.number, &old.record);
        build->node_count--;
        build->chunk_count -= old.record.length;
    }
    if (status == HASHTRIE_OK || status == HASHTRIE_ENOENT) {
        status = row_put(&build->env, build->txn, build->next_row, record);
    }
    if (status == HASHTRIE_OK) {
        build->next_row++;
        build->node_count++;
        build->chunk_count += record->length;
        build->newest_bucket =
            record->bucket > build->newest_bucket ? record->bucket : build->newest_bucket;
    }
    uint32_t holders = record->holder_count == TRIE_HELD_BY_ALL ? 0 : record->holder_count;
    for (uint32_t i = 0; i < holders; i++) {
        uint64_t id = (uint64_t)record->holders[i].id + 1;
        build->next_endpoint_id = id > build->next_endpoint_id ? id : build->next_endpoint_id;
    }
    return status;
}

enum hashtrie_status build_put_endpoint(struct build *build, const struct record_endpoint *record)
{
    REQUIRE(build->txn != NULL);
    struct trie_endpoint endpoint = {.id = record->id,
                                     .odometer_kib = record->odometer_kib,
                                     .name = record->name,
                                     .model = record->model,
                                     .generation = record->generation};
    unsigned char name[ENDPOINT_KEY_SIZE];
    unsigned char bytes[ENDPOINT_BYTES_MAX];
    record_put_u32(name, record->id);
    size_t size = record_encode_endpoint(bytes, &endpoint, record->seen_s);
    MDB_val key = env_val(name, sizeof name);
    MDB_val value = env_val(bytes, size);
    uint64_t id = (uint64_t)record->id + 1;
    build->next_endpoint_id = id > build->next_endpoint_id ? id : build->next_endpoint_id;
    return env_status(mdb_put(build->txn, build->env.dbi[DB_ENDPOINTS], &key, &value, 0));
}

enum hashtrie_status build_endpoint_seen(struct build *build, uint32_t id, uint64_t *seen_s)
{
    REQUIRE(build->txn != NULL);
    unsigned char name[ENDPOINT_KEY_SIZE];
    record_put_u32(name, id);
    MDB_val key = env_val(name, sizeof name);
    MDB_val value;
    enum hashtrie_status status =
        env_status(mdb_get(build->txn, build->env.dbi[DB_ENDPOINTS], &key, &value));
    struct record_endpoint record;
    if (status == HASHTRIE_OK &&
        !record_decode_endpoint(value.mv_data, value.mv_size, id, &record)) {
        return HASHTRIE_ECORRUPT;
    }
    if (status == HASHTRIE_OK) {
        *seen_s = record.seen_s;
    }
    return status;
}

static enum hashtrie_status finish(struct build *build)
{
    enum hashtrie_status status = commit(build);
    if (status == HASHTRIE_OK) {
        status = begin(build, FINISH_BYTES);
    }
    if (status == HASHTRIE_OK) {
        status = env_meta_put(&build->env, build->txn, META_CLEAN, 1);
    }
    if (status == HASHTRIE_OK) {
        status = commit(build);
    }
    if (status == HASHTRIE_OK) {
        (void)env_extend_file(&build->env);
        status = env_status(mdb_env_sync(build->env.mdb, 1));
    }
    return status;
}

/* The file gets its name, for good. What a reader may have made of lock.mdb meanwhile goes. */
static enum hashtrie_status publish(struct build *build)
{
    char from[ENV_PATH_BYTES_MAX];
    char to[ENV_PATH_BYTES_MAX];
    char lock[ENV_PATH_BYTES_MAX];
    if (!env_path(from, build->folder, "data.mdb") || !env_path(to, build->directory, "data.mdb") ||
        !env_path(lock, build->directory, "lock.mdb")) {
        return HASHTRIE_EINVAL;
    }
    (void)unlink(lock); /* Mostly there is none. */
    if (rename(from, to) != 0 || fsync(build->directory_fd) != 0) {
        return env_status(errno);
    }
    folder_remove(build->folder);
    return HASHTRIE_OK;
}

enum hashtrie_status build_finish(struct build *build)
{
    enum hashtrie_status status = finish(build);
    if (status == HASHTRIE_OK) {
        close_all(build);
        status = build->fresh ? publish(build) : HASHTRIE_OK;
    }
    if (status != HASHTRIE_OK) {
        build_abandon(build);
        return status;
    }
    unlock(build);
    return HASHTRIE_OK;
}

void build_clear(const char *directory)
{
    char path[ENV_PATH_BYTES_MAX];
    if (env_path(path, directory, unfinished_name)) {
        folder_remove(path);
    }
}

#include "store/env.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "store/folder.h"

enum {
    READERS_MAX = 126, /* Slots for read transactions, those of other processes included. */
    FILE_MODE = 0600,
    DBI_FREE = 0, /* LMDB's own two databases. */
    DBI_MAIN = 1,
    ASIDE_ATTEMPTS = 100, /* Names tried, one per second. */
    DELETING_BYTES =
        4 << 20, /* Of map above a file that is larger than its cap: deleting needs pages. */
};

/* Of file systems without the locks and the coherent maps that LMDB needs; not all are in
 * linux/magic.h. */
#define MAGIC_CIFS UINT32_C(0xff534d42)
#define MAGIC_SMB2 UINT32_C(0xfe534d42)

static const char *const db_names[DB_COUNT] = {
    [DB_META] = "meta", [DB_ENDPOINTS] = "endpoints", [DB_EDGES] = "edges",
    [DB_RUNS] = "runs", [DB_STATE] = "state",         [DB_AGE] = "age",
};

const char *env_db_name(enum env_db db)
{
    return db_names[db];
}

enum hashtrie_status env_status(int code)
{
    switch (code) {
    case MDB_SUCCESS:
        return HASHTRIE_OK;
    case MDB_NOTFOUND:
    case ENOENT:
        return HASHTRIE_ENOENT;
    case MDB_KEYEXIST:
    case EEXIST:
        return HASHTRIE_EEXIST;
    case MDB_MAP_FULL:
    case MDB_TXN_FULL:
        return HASHTRIE_EFULL;
    case ENOSPC:
    case EDQUOT:
        return HASHTRIE_ENOSPC;
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_INVALID:
    case MDB_VERSION_MISMATCH:
    case MDB_INCOMPATIBLE:
    case MDB_BAD_VALSIZE:
    case MDB_PAGE_FULL:
    case MDB_CURSOR_FULL:
    case MDB_BAD_TXN: /* It met something impossible before. */
    case EFAULT:      /* A page's count of pages led it out of its memory. */
        return HASHTRIE_ECORRUPT;
    case MDB_READERS_FULL:
    case MDB_DBS_FULL:
    case EAGAIN:
    case EBUSY:
        return HASHTRIE_EBUSY;
    case EROFS:
        return HASHTRIE_EROFS;
    case EACCES:
    case EPERM:
        return HASHTRIE_EACCES;
    case ENOTDIR:
    case EISDIR:
    case ENAMETOOLONG:
    case EINVAL:
        return HASHTRIE_EINVAL;
    case ENOMEM:
        return HASHTRIE_ENOMEM;
    default:
        return HASHTRIE_EIO; /* MDB_PANIC and MDB_MAP_RESIZED too: open it again. */
    }
}

/* ---- The directory ---- */

static bool is_network(const struct statfs *where)
{
    uint32_t magic = (uint32_t)where->f_type;
    return magic == NFS_SUPER_MAGIC || magic == SMB_SUPER_MAGIC || magic == MAGIC_CIFS ||
           magic == MAGIC_SMB2;
}

bool env_path(char path[ENV_PATH_BYTES_MAX], const char *directory, const char *name)
{
    int size = snprintf(path, ENV_PATH_BYTES_MAX, "%s/%s", directory, name);
    return size > 0 && size < ENV_PATH_BYTES_MAX;
}

enum hashtrie_status env_directory_open(const char *directory, int *fd)
{
    enum hashtrie_status made = folder_make(directory);
    if (made != HASHTRIE_OK) {
        return made;
    }
    int opened = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (opened < 0) {
        return env_status(errno);
    }
    struct statfs where;
    int code = fstatfs(opened, &where);
    bool network = code == 0 && is_network(&where);
    if (code == 0 && !network) {
        code = flock(opened, LOCK_EX | LOCK_NB);
    }
    enum hashtrie_status status = code == 0 ? HASHTRIE_OK : env_status(errno);
    status = network ? HASHTRIE_ENETFS : status;
    if (status != HASHTRIE_OK) {
        (void)close(opened); /* Nothing was written through it. */
        return status;
    }
    *fd = opened;
    return HASHTRIE_OK;
}

static struct env_file_id id_of(const struct stat *file)
{
    return (struct env_file_id){.device = (uint64_t)file->st_dev, .inode = (uint64_t)file->st_ino};
}

static struct env_file_id id_of_name(const char *directory, const char *name)
{
    char path[ENV_PATH_BYTES_MAX];
    struct stat file;
    bool known = env_path(path, directory, name) && stat(path, &file) == 0;
    return known ? id_of(&file) : (struct env_file_id){0, 0};
}

struct env_files env_files(const struct env *env, const char *directory)
{
    struct env_files files = {.directory = id_of_name(directory, "."),
                              .lock = id_of_name(directory, "lock.mdb")};
    int fd = -1;
    struct stat file;
    if (mdb_env_get_fd(env->mdb, &fd) == MDB_SUCCESS && fstat(fd, &file) == 0) {
        files.data = id_of(&file);
    }
    return files;
}

static bool in_place(const char *directory, const char *name, struct env_file_id expected)
{
    char path[ENV_PATH_BYTES_MAX];
    struct stat file;
    if (!env_path(path, directory, name) || stat(path, &file) != 0) {
        return errno != ENOENT && errno != ENOTDIR;
    }
    struct env_file_id found = id_of(&file);
    return found.device == expected.device && found.inode == expected.inode;
}

bool env_files_in_place(const struct env_files *files, const char *directory)
{
    return in_place(directory, ".", files->directory) &&
           in_place(directory, "data.mdb", files->data) &&
           in_place(directory, "lock.mdb", files->lock);
}

uint64_t env_file_bytes(const char *directory)
{
    char path[ENV_PATH_BYTES_MAX];
    struct stat file;
    if (!env_path(path, directory, "data.mdb") || stat(path, &file) != 0) {
        return 0;
    }
    return (uint64_t)file.st_size;
}

/* What the file takes on the device: less than its size where it has holes. */
static uint64_t allocated_bytes(const char *directory)
{
    enum { BLOCK_BYTES = 512 }; /* Of st_blocks, by POSIX tradition. */
    char path[ENV_PATH_BYTES_MAX];
    struct stat file;
    if (!env_path(path, directory, "data.mdb") || stat(path, &file) != 0) {
        return 0;
    }
    return (uint64_t)file.st_blocks * BLOCK_BYTES;
}

uint64_t env_free_bytes(const char *directory)
{
    struct statvfs where;
    if (statvfs(directory, &where) != 0) {
        return UINT64_MAX; /* Unknown; the device will tell. */
    }
    return (uint64_t)where.f_bavail * where.f_frsize;
}

uint64_t env_space(const char *directory)
{
    uint64_t free_bytes = env_free_bytes(directory);
    return free_bytes == UINT64_MAX ? free_bytes
                                    : (free_bytes + allocated_bytes(directory)) / 10 * 9;
}

static void remove_older_aside(const char *directory, const char *keep)
{
    static const char prefix[] = "data.mdb.bad-";
    DIR *listing = opendir(directory);
    if (listing == NULL) {
        return;
    }
    for (const struct dirent *entry = readdir(listing); entry != NULL; entry = readdir(listing)) {
        char path[ENV_PATH_BYTES_MAX];
        if (strncmp(entry->d_name, prefix, sizeof prefix - 1) == 0 &&
            env_path(path, directory, entry->d_name) && strcmp(path, keep) != 0) {
            (void)unlink(path); /* It takes space, no more. */
        }
    }
    (void)closedir(listing); /* Only read. */
}

enum hashtrie_status env_move_aside(const char *directory, char *name)
{
    char from[ENV_PATH_BYTES_MAX];
    char lock[ENV_PATH_BYTES_MAX];
    REQUIRE(name != NULL);
    if (!env_path(from, directory, "data.mdb") || !env_path(lock, directory, "lock.mdb")) {
        return HASHTRIE_EINVAL;
    }
    uint64_t now_s = clock_unix_ns() / CLOCK_NS_PER_S;
    int size = -1;
    for (uint64_t i = 0; i < ASIDE_ATTEMPTS; i++) {
        size = snprintf(name, ENV_PATH_BYTES_MAX, "%s.bad-%" PRIu64, from, now_s + i);
        if (size >= ENV_PATH_BYTES_MAX || access(name, F_OK) != 0) {
            break;
        }
    }
    if (size <= 0 || size >= ENV_PATH_BYTES_MAX) {
        return HASHTRIE_EINVAL;
    }
    if (rename(from, name) != 0) {
        return env_status(errno);
    }
    (void)unlink(lock); /* It tells of the old file's transactions. */
    remove_older_aside(directory, name);
    return HASHTRIE_OK;
}

/* ---- Opening ---- */

void env_close(struct env *env)
{
    if (env->mdb != NULL) {
        mdb_env_close(env->mdb);
    }
    *env = (struct env){0};
}

/* What is asked for is right: a file whose sizes the kernel refuses to map is damaged. */
static enum hashtrie_status open_status(int code)
{
    return code == EINVAL ? HASHTRIE_ECORRUPT : env_status(code);
}

static enum hashtrie_status create(struct env *env, uint64_t map_bytes)
{
    *env = (struct env){0};
    int code = mdb_env_create(&env->mdb);
    if (code != MDB_SUCCESS) {
        env->mdb = NULL;
        return env_status(code);
    }
    code = mdb_env_set_maxdbs(env->mdb, DB_COUNT);
    if (code == MDB_SUCCESS) {
        code = mdb_env_set_maxreaders(env->mdb, READERS_MAX);
    }
    if (code == MDB_SUCCESS && map_bytes > 0) {
        code = mdb_env_set_mapsize(env->mdb, map_bytes);
    }
    return env_status(code);
}

/* Page size and map size, once open. */
static enum hashtrie_status measure(struct env *env)
{
    MDB_stat stat;
    MDB_envinfo info;
    int code = mdb_env_stat(env->mdb, &stat);
    if (code == MDB_SUCCESS) {
        code = mdb_env_info(env->mdb, &info);
    }
    if (code == MDB_SUCCESS) {
        env->page_bytes = stat.ms_psize;
        env->map_bytes = info.me_mapsize;
    }
    return env_status(code);
}

uint64_t env_extend_file(const struct env *env)
{
    MDB_envinfo info;
    int fd = -1;
    struct stat file;
    if (mdb_env_info(env->mdb, &info) != MDB_SUCCESS ||
        mdb_env_get_fd(env->mdb, &fd) != MDB_SUCCESS || fstat(fd, &file) != 0) {
        return 0;
    }
    uint64_t bytes = (uint64_t)file.st_size;
    uint64_t needed = ((uint64_t)info.me_last_pgno + 1) * env->page_bytes;
    if (bytes < needed && needed <= env->map_bytes && ftruncate(fd, (off_t)needed) == 0) {
        bytes = needed;
    }
    return bytes;
}

/* meta[field] as a status: what is unreadable is damage. */
enum hashtrie_status env_meta_get(const struct env *env, MDB_txn *txn, enum meta_field field,
                                  uint64_t *number)
{
    unsigned char name[META_KEY_SIZE];
    record_put_u32(name, (uint32_t)field);
    MDB_val key = env_val(name, sizeof name);
    MDB_val value;
    int code = mdb_get(txn, env->dbi[DB_META], &key, &value);
    if (code != MDB_SUCCESS) {
        return env_status(code);
    }
    bool good = record_decode_meta(value.mv_data, value.mv_size, field, number);
    return good ? HASHTRIE_OK : HASHTRIE_ECORRUPT;
}

enum hashtrie_status env_meta_put(const struct env *env, MDB_txn *txn, enum meta_field field,
                                  uint64_t number)
{
    unsigned char name[META_KEY_SIZE];
    unsigned char bytes[META_VALUE_SIZE];
    record_put_u32(name, (uint32_t)field);
    record_encode_meta(bytes, field, number);
    MDB_val key = env_val(name, sizeof name);
    MDB_val value = env_val(bytes, sizeof bytes);
    return env_status(mdb_put(txn, env->dbi[DB_META], &key, &value, 0));
}

/* EVERSION unless `field` is there with that number. */
static enum hashtrie_status expect_meta(const struct env *env, MDB_txn *txn, enum meta_field field,
                                        uint64_t expected)
{
    uint64_t number = 0;
    enum hashtrie_status status = env_meta_get(env, txn, field, &number);
    if (status == HASHTRIE_ENOENT || (status == HASHTRIE_OK && number != expected)) {
        return HASHTRIE_EVERSION;
    }
    return status;
}

static enum hashtrie_status check_format(const struct env *env, MDB_txn *txn, uint64_t chunk_size)
{
    enum hashtrie_status status = expect_meta(env, txn, META_FORMAT, HASHTRIE_FORMAT_VERSION);
    if (status == HASHTRIE_OK && chunk_size != 0) {
        status = expect_meta(env, txn, META_CHUNK_SIZE, chunk_size);
    }
    if (status == HASHTRIE_OK && chunk_size != 0) {
        status = expect_meta(env, txn, META_HASH_SEED, HASHTRIE_HASH_SEED);
    }
    return status;
}

static enum hashtrie_status write_format(const struct env *env, MDB_txn *txn, uint64_t chunk_size)
{
    const uint64_t fields[META_FIELDS] = {
        [META_FORMAT] = HASHTRIE_FORMAT_VERSION,
        [META_CHUNK_SIZE] = chunk_size,
        [META_HASH_SEED] = HASHTRIE_HASH_SEED,
        [META_NEXT_ENDPOINT_ID] = 1,
    };
    for (int field = 0; field < META_FIELDS; field++) {
        enum hashtrie_status status = env_meta_put(env, txn, (enum meta_field)field, fields[field]);
        if (status != HASHTRIE_OK) {
            return status;
        }
    }
    return HASHTRIE_OK;
}

static enum hashtrie_status open_dbs(struct env *env, MDB_txn *txn, unsigned flags)
{
    for (int db = 0; db < DB_COUNT; db++) {
        int code = mdb_dbi_open(txn, db_names[db], flags, &env->dbi[db]);
        if (code != MDB_SUCCESS) {
            /* Of a store of ours none may be missing. */
            return code == MDB_NOTFOUND ? HASHTRIE_ECORRUPT : env_status(code);
        }
        unsigned stored = 0;
        if (mdb_dbi_flags(txn, env->dbi[db], &stored) != MDB_SUCCESS || stored != 0) {
            return HASHTRIE_ECORRUPT; /* LMDB would read its values in another way. */
        }
    }
    return HASHTRIE_OK;
}

/* Whose file is it? A fresh one gets the format; one that is not a store of this format is told. */
static enum hashtrie_status adopt(struct env *env, MDB_txn *txn, uint64_t chunk_size, bool writable)
{
    MDB_stat stat;
    int code = mdb_stat(txn, DBI_MAIN, &stat);
    if (code != MDB_SUCCESS) {
        return env_status(code);
    }
    if (stat.ms_entries == 0 && !writable) {
        return HASHTRIE_ENOENT;
    }
    if (stat.ms_entries == 0) {
        enum hashtrie_status status = open_dbs(env, txn, MDB_CREATE);
        return status == HASHTRIE_OK ? write_format(env, txn, chunk_size) : status;
    }
    code = mdb_dbi_open(txn, db_names[DB_META], 0, &env->dbi[DB_META]);
    if (code == MDB_NOTFOUND) {
        return HASHTRIE_EVERSION; /* LMDB, but not ours. */
    }
    enum hashtrie_status status = env_status(code);
    if (status == HASHTRIE_OK) {
        status = check_format(env, txn, chunk_size);
    }
    if (status == HASHTRIE_OK) {
        status = open_dbs(env, txn, 0);
    }
    return status;
}

/* A store that cannot be written now (no space, an error) can still be read. */
static enum hashtrie_status adopt_for_reading(struct env *env, uint64_t chunk_size)
{
    MDB_txn *txn = NULL;
    int code = mdb_txn_begin(env->mdb, NULL, MDB_RDONLY, &txn);
    if (code != MDB_SUCCESS) {
        return env_status(code);
    }
    enum hashtrie_status status = adopt(env, txn, chunk_size, false);
    if (status != HASHTRIE_OK) {
        mdb_txn_abort(txn);
        return status;
    }
    return env_status(mdb_txn_commit(txn)); /* Keeps the handles. */
}

static enum hashtrie_status adopt_for_writing(struct env *env, uint64_t chunk_size,
                                              uint64_t cap_bytes)
{
    MDB_txn *txn = NULL;
    int code = mdb_txn_begin(env->mdb, NULL, 0, &txn);
    if (code != MDB_SUCCESS) {
        return env_status(code);
    }
    enum hashtrie_status status = adopt(env, txn, chunk_size, true);
    if (status == HASHTRIE_OK) {
        status = env_meta_put(env, txn, META_CLEAN, 0);
    }
    if (status == HASHTRIE_OK) {
        status = env_meta_put(env, txn, META_CAP_BYTES, cap_bytes);
    }
    if (status != HASHTRIE_OK) {
        mdb_txn_abort(txn);
        return status;
    }
    return env_status(mdb_txn_commit(txn));
}

/*
 * LMDB writes to its table of readers through a map: where the device has no room for it, that is a
 * SIGBUS instead of an error. So the room is taken before.
 */
static enum hashtrie_status take_room_for_lock(const char *directory)
{
    enum { LOCK_FILE_BYTES = 8192 }; /* What LMDB makes it for READERS_MAX. */
    char path[ENV_PATH_BYTES_MAX];
    if (!env_path(path, directory, "lock.mdb")) {
        return HASHTRIE_EINVAL;
    }
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, FILE_MODE);
    if (fd < 0) {
        return env_status(errno);
    }
    int code = fallocate(fd, 0, 0, LOCK_FILE_BYTES) == 0 ? 0 : errno;
    (void)close(fd); /* Nothing was written through it. */
    return code == EOPNOTSUPP ? HASHTRIE_OK : env_status(code);
}

enum hashtrie_status env_open(struct env *env, const char *directory, uint64_t map_bytes,
                              uint64_t chunk_size)
{
    uint64_t cap_bytes = map_bytes;
    uint64_t file_bytes = env_file_bytes(directory);
    if (file_bytes > map_bytes) {
        map_bytes = file_bytes + DELETING_BYTES;
    }
    enum hashtrie_status status = take_room_for_lock(directory);
    if (status != HASHTRIE_OK) {
        return status;
    }
    status = create(env, map_bytes);
    if (status == HASHTRIE_OK) {
        status = open_status(mdb_env_open(env->mdb, directory, MDB_NOTLS, FILE_MODE));
    }
    if (status == HASHTRIE_OK) {
        status = measure(env);
    }
    if (status != HASHTRIE_OK) {
        env_close(env);
        return status;
    }
    (void)env_extend_file(env); /* Reading a page that was cut off gives zeroes, not SIGBUS. */
    int dead = 0;
    (void)mdb_reader_check(env->mdb, &dead); /* Stale readers only hold pages back. */
    status = adopt_for_writing(env, chunk_size, cap_bytes);
    if (status == HASHTRIE_EFULL || status == HASHTRIE_ENOSPC || status == HASHTRIE_EIO) {
        enum hashtrie_status second = adopt_for_reading(env, chunk_size);
        status = second == HASHTRIE_OK ? HASHTRIE_OK : status;
    }
    if (status == HASHTRIE_OK) {
        status = folder_sync(directory); /* It may have been made, or moved here. */
    }
    if (status != HASHTRIE_OK) {
        env_close(env);
    }
    return status;
}

/* A pipe in its place would keep whoever opens it waiting. */
static bool is_other_than_file(const char *directory)
{
    char path[ENV_PATH_BYTES_MAX];
    struct stat file;
    return env_path(path, directory, "data.mdb") && stat(path, &file) == 0 &&
           !S_ISREG(file.st_mode);
}

static enum hashtrie_status open_readonly(struct env *env, const char *directory, unsigned flags)
{
    *env = (struct env){0};
    enum hashtrie_status status = is_other_than_file(directory) ? HASHTRIE_EINVAL : create(env, 0);
    if (status == HASHTRIE_OK) {
        status = open_status(
            mdb_env_open(env->mdb, directory, MDB_NOTLS | MDB_RDONLY | flags, FILE_MODE));
    }
    if (status == HASHTRIE_OK) {
        status = measure(env);
    }
    if (status != HASHTRIE_OK) {
        env_close(env);
    }
    return status;
}

enum hashtrie_status env_open_readonly(struct env *env, const char *directory, bool *lockless)
{
    char lock[ENV_PATH_BYTES_MAX];
    if (!env_path(lock, directory, "lock.mdb")) {
        return HASHTRIE_EINVAL;
    }
    *lockless = access(lock, W_OK) != 0 && (errno == EACCES || errno == EROFS);
    enum hashtrie_status status = open_readonly(env, directory, *lockless ? MDB_NOLOCK : 0);
    if ((status == HASHTRIE_EACCES || status == HASHTRIE_EROFS) && !*lockless) {
        *lockless = true;
        status = open_readonly(env, directory, MDB_NOLOCK);
    }
    if (status != HASHTRIE_OK) {
        return status;
    }
    status = adopt_for_reading(env, 0);
    if (status != HASHTRIE_OK) {
        env_close(env);
    }
    return status;
}

enum hashtrie_status env_open_alone(struct env *env, const char *directory, uint64_t chunk_size)
{
    enum hashtrie_status status = open_readonly(env, directory, MDB_NOLOCK);
    if (status != HASHTRIE_OK) {
        return status;
    }
    status = adopt_for_reading(env, chunk_size);
    if (status != HASHTRIE_OK) {
        env_close(env);
    }
    return status;
}

/* ---- Figures ---- */

enum hashtrie_status env_entries(const struct env *env, MDB_txn *txn, enum env_db db,
                                 uint64_t *count)
{
    MDB_stat stat;
    int code = mdb_stat(txn, env->dbi[db], &stat);
    if (code == MDB_SUCCESS) {
        *count = stat.ms_entries;
    }
    return env_status(code);
}

enum hashtrie_status env_used_pages(const struct env *env, MDB_txn *txn, uint64_t *pages)
{
    MDB_dbi dbis[DB_COUNT + 2] = {DBI_FREE, DBI_MAIN};
    memcpy(dbis + 2, env->dbi, sizeof env->dbi);
    uint64_t sum = 0;
    for (int i = 0; i < DB_COUNT + 2; i++) {
        MDB_stat stat;
        int code = mdb_stat(txn, dbis[i], &stat);
        if (code != MDB_SUCCESS) {
            return env_status(code);
        }
        sum += stat.ms_branch_pages + stat.ms_leaf_pages + stat.ms_overflow_pages;
    }
    *pages = sum;
    return HASHTRIE_OK;
}

#include "store/probe.h"

#include <string.h>
#include <unistd.h>

#include "hashtrie/store.h"

#include "base/clock.h"
#include "base/random.h"
#include "store/pages.h"
#include "store/reader.h"

enum {
    SAMPLE_MS = 20,       /* Then it is enough: on a slow disk each read may take that long. */
    SAMPLES_PER_DB = 48,  /* Positions, ... */
    ROWS_PER_SAMPLE = 4,  /* ... and rows at each. */
    ENDPOINTS_MAX = 4096, /* Looked at. */
    FREE_LISTS_MAX = 4096,
    DBI_FREE = 0,
    FIRST_DATA_PAGE = 2,
};

/* ---- A sample, through LMDB ---- */

struct sample {
    struct env env;
    MDB_txn *txn;
    uint64_t last_page;
    uint64_t until_ns;
    struct random random;
};

static bool in_time(const struct sample *sample)
{
    return clock_monotonic_ns() < sample->until_ns;
}

static void touch(const MDB_val *value)
{
    const volatile unsigned char *bytes = value->mv_data;
    for (size_t at = 0; at < value->mv_size; at += 512) {
        (void)bytes[at];
    }
    if (value->mv_size > 0) {
        (void)bytes[value->mv_size - 1];
    }
}

static enum hashtrie_status open_cursor(const struct sample *sample, MDB_dbi dbi,
                                        MDB_cursor **cursor)
{
    return env_status(mdb_cursor_open(sample->txn, dbi, cursor));
}

/* Up to `count` entries from `position` on. */
static enum hashtrie_status read_some(MDB_cursor *cursor, MDB_val *key, MDB_cursor_op position,
                                      size_t count)
{
    MDB_val value;
    enum hashtrie_status status = env_status(mdb_cursor_get(cursor, key, &value, position));
    for (size_t i = 0; i < count && status == HASHTRIE_OK; i++) {
        touch(key);
        touch(&value);
        status = env_status(mdb_cursor_get(cursor, key, &value, MDB_NEXT));
    }
    return status == HASHTRIE_ENOENT ? HASHTRIE_OK : status;
}

/* The row of an edge, if there is one here: what a reload does. */
static enum hashtrie_status follow_edge(const struct sample *sample, const MDB_val *key)
{
    if (key->mv_size != EDGE_KEY_SIZE) {
        return HASHTRIE_ECORRUPT;
    }
    const unsigned char *name = key->mv_data;
    struct trie_stored_holder holders[HASHTRIE_HOLDERS_MAX];
    uint32_t run[TRIE_RUN_LENGTH_MAX];
    struct row row = {0};
    enum hashtrie_status status = row_find(&sample->env, sample->txn, record_get_u64(name),
                                           record_get_u32(name + 8), holders, &row);
    if (status == HASHTRIE_OK) {
        (void)row_read_run(&sample->env, sample->txn, &row, run); /* As below. */
    }
    return HASHTRIE_OK; /* LMDB lived; a bad record is a miss. */
}

/* A key of that size anywhere between the first and the last one: both are numbers to 8 bytes. */
static void random_key(struct sample *sample, const MDB_val *first, const MDB_val *last,
                       unsigned char key[AGE_KEY_SIZE])
{
    uint64_t low = 0;
    uint64_t high = UINT64_MAX;
    if (first->mv_size >= 8 && last->mv_size >= 8) {
        low = record_get_u64(first->mv_data);
        high = record_get_u64(last->mv_data);
    }
    uint64_t span = high > low ? high - low : 0;
    uint64_t at = span == 0 ? low : low + random_next(&sample->random) % span;
    memset(key, 0, AGE_KEY_SIZE);
    record_put_u64(key, at);
}

static enum hashtrie_status sample_at(struct sample *sample, enum env_db db, MDB_cursor *cursor,
                                      const MDB_val *first, const MDB_val *last)
{
    unsigned char name[AGE_KEY_SIZE];
    random_key(sample, first, last, name);
    MDB_val key = env_val(name, first->mv_size < sizeof name ? first->mv_size : sizeof name);
    MDB_val value;
    enum hashtrie_status status = env_status(mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE));
    if (status != HASHTRIE_OK) {
        return status == HASHTRIE_ENOENT ? HASHTRIE_OK : status;
    }
    if (db == DB_EDGES) {
        status = follow_edge(sample, &key);
    }
    return status == HASHTRIE_OK ? read_some(cursor, &key, MDB_GET_CURRENT, ROWS_PER_SAMPLE)
                                 : status;
}

static enum hashtrie_status sample_db(struct sample *sample, enum env_db db)
{
    MDB_cursor *cursor = NULL;
    MDB_val first;
    MDB_val last;
    MDB_val value;
    enum hashtrie_status status = open_cursor(sample, sample->env.dbi[db], &cursor);
    if (status != HASHTRIE_OK) {
        return status;
    }
    status = env_status(mdb_cursor_get(cursor, &last, &value, MDB_LAST));
    if (status == HASHTRIE_OK) {
        touch(&value);
        status = env_status(mdb_cursor_get(cursor, &first, &value, MDB_FIRST));
    }
    if (status == HASHTRIE_OK && (db == DB_META || db == DB_ENDPOINTS)) {
        status = read_some(cursor, &first, MDB_FIRST, ENDPOINTS_MAX);
    } else {
        for (int i = 0; i < SAMPLES_PER_DB && status == HASHTRIE_OK && in_time(sample); i++) {
            status = sample_at(sample, db, cursor, &first, &last);
        }
    }
    mdb_cursor_close(cursor);
    return status == HASHTRIE_ENOENT ? HASHTRIE_OK : status;
}

/* What LMDB would take its next pages from: a count, then numbers that fall. */
static bool free_list_is_sane(const MDB_val *value, uint64_t last_page)
{
    size_t most = value->mv_size / sizeof(uint64_t);
    uint64_t count = 0;
    if (most == 0 || value->mv_size % sizeof(uint64_t) != 0) {
        return false;
    }
    memcpy(&count, value->mv_data, sizeof count);
    uint64_t before = last_page + 1;
    for (uint64_t i = 1; i <= count; i++) {
        uint64_t page = 0;
        if (i >= most) {
            return false;
        }
        memcpy(&page, (const unsigned char *)value->mv_data + i * sizeof page, sizeof page);
        if (page >= before || page < FIRST_DATA_PAGE) {
            return false;
        }
        before = page;
    }
    return true;
}

static enum hashtrie_status sample_free_lists(struct sample *sample)
{
    MDB_cursor *cursor = NULL;
    MDB_val key;
    MDB_val value;
    enum hashtrie_status status = open_cursor(sample, DBI_FREE, &cursor);
    if (status != HASHTRIE_OK) {
        return status;
    }
    status = env_status(mdb_cursor_get(cursor, &key, &value, MDB_FIRST));
    for (int i = 0; i < FREE_LISTS_MAX && status == HASHTRIE_OK && in_time(sample); i++) {
        status = key.mv_size == sizeof(uint64_t) && free_list_is_sane(&value, sample->last_page)
                     ? env_status(mdb_cursor_get(cursor, &key, &value, MDB_NEXT))
                     : HASHTRIE_ECORRUPT;
    }
    mdb_cursor_close(cursor);
    return status == HASHTRIE_ENOENT ? HASHTRIE_OK : status;
}

/* The file is as long as its pages say, but for free ones at the end that were never written. */
static enum hashtrie_status check_size(struct sample *sample, const struct probe *probe)
{
    MDB_envinfo info;
    if (mdb_env_info(sample->env.mdb, &info) != MDB_SUCCESS) {
        return HASHTRIE_ECORRUPT;
    }
    sample->last_page = info.me_last_pgno;
    uint64_t bytes = env_file_bytes(probe->directory);
    uint64_t most = bytes > probe->map_bytes ? bytes : probe->map_bytes;
    bool sane = bytes <= info.me_mapsize && sample->last_page < most / sample->env.page_bytes;
    return sane ? HASHTRIE_OK : HASHTRIE_ECORRUPT;
}

enum hashtrie_status probe_sample(void *user, struct child_line *line)
{
    const struct probe *probe = user;
    struct sample sample = {.until_ns = clock_monotonic_ns() + SAMPLE_MS * CLOCK_NS_PER_MS,
                            .random = {.state = random_system_seed()}};
    (void)line; /* It is over before anybody asks. */
    enum hashtrie_status status = env_open_alone(&sample.env, probe->directory, probe->chunk_size);
    if (status != HASHTRIE_OK) {
        return status == HASHTRIE_ENOMEM ? HASHTRIE_ECORRUPT : status; /* A map beyond all sense. */
    }
    status = check_size(&sample, probe);
    if (status == HASHTRIE_OK) {
        status = env_status(mdb_txn_begin(sample.env.mdb, NULL, MDB_RDONLY, &sample.txn));
    }
    if (status == HASHTRIE_OK) {
        status = sample_free_lists(&sample);
        for (int db = 0; db < DB_COUNT && status == HASHTRIE_OK; db++) {
            status = sample_db(&sample, (enum env_db)db);
        }
        mdb_txn_abort(sample.txn);
    }
    env_close(&sample.env);
    return status == HASHTRIE_EIO ? HASHTRIE_ECORRUPT : status; /* "Went wrong before." */
}

/* ---- All pages, without LMDB ---- */

struct survey {
    struct mem mem;
    struct pages pages;
    struct pages_set used; /* Pages that something leads to. */
    struct pages_walk walk;
    uint64_t roots[DB_COUNT];
    uint64_t faults;
    uint64_t done;
    struct child_line *line;
    unsigned char *page; /* Owned. */
};

static void use_page(struct survey *survey, uint64_t number)
{
    survey->faults += number < FIRST_DATA_PAGE || number >= survey->pages.page_count ||
                      pages_set_has(&survey->used, number);
    pages_set_add(&survey->used, number);
    child_tell(survey->line, survey->done++, survey->pages.page_count);
}

/* A value that lies on pages of its own. */
static void use_overflow(struct survey *survey, const struct pages_node *node)
{
    enum { FLAG_OVERFLOW = 0x04 };
    uint64_t step = survey->pages.page_bytes;
    uint64_t count = (node->value_size + PAGES_HEADER_BYTES + step - 1) / step;
    uint16_t flags = 0;
    uint32_t said = 0;
    if (!pages_read(&survey->pages, node->overflow, survey->page)) {
        survey->faults++;
        return;
    }
    memcpy(&flags, survey->page + 10, sizeof flags);
    memcpy(&said, survey->page + 12, sizeof said);
    survey->faults += (flags & FLAG_OVERFLOW) == 0 || said < count;
    for (uint64_t i = 0; i < said && i < survey->pages.page_count; i++) {
        use_page(survey, node->overflow + i);
    }
}

static void survey_leaf(struct survey *survey, const unsigned char *leaf, bool is_main)
{
    for (uint32_t i = 0; i < pages_node_count(&survey->pages, leaf); i++) {
        struct pages_node node;
        if (!pages_node_at(&survey->pages, leaf, i, &node) || node.is_tree != is_main ||
            node.is_odd) {
            survey->faults++;
        } else if (is_main) {
            for (int db = 0; db < DB_COUNT; db++) {
                const char *name = env_db_name((enum env_db)db);
                bool same =
                    node.key_size == strlen(name) && memcmp(node.key, name, node.key_size) == 0;
                survey->roots[db] = same ? pages_tree_root(&node) : survey->roots[db];
            }
        } else if (node.value == NULL) {
            use_overflow(survey, &node);
        }
    }
}

/* Pages that LMDB would give out: nothing may lead to them. */
static void use_free_list(struct survey *survey, const struct pages_node *node)
{
    size_t step = survey->pages.page_bytes;
    uint64_t count = 1;
    uint64_t loaded = PAGES_NONE;
    for (uint64_t i = 0; i <= count && (i + 1) * sizeof count <= node->value_size; i++) {
        const unsigned char *at = NULL;
        if (node->value != NULL) {
            at = node->value + i * sizeof count;
        } else {
            uint64_t offset = PAGES_HEADER_BYTES + i * sizeof count;
            if (loaded != offset / step &&
                !pages_read(&survey->pages, node->overflow + offset / step, survey->page)) {
                survey->faults++;
                return;
            }
            loaded = offset / step;
            at = survey->page + offset % step;
        }
        uint64_t number = 0;
        memcpy(&number, at, sizeof number);
        if (i == 0) {
            count = number;
        } else if (number < survey->pages.page_count) { /* Free ones behind were never written. */
            use_page(survey, number);
        }
    }
}

static enum hashtrie_status use_free_lists(struct survey *survey)
{
    if (!pages_walk_init(&survey->walk, &survey->mem, &survey->pages, survey->pages.free_root, 0)) {
        return HASHTRIE_ENOMEM;
    }
    uint64_t number = 0;
    const unsigned char *leaf = pages_walk_next(&survey->walk, &number);
    while (leaf != NULL) {
        for (uint32_t i = 0; i < pages_node_count(&survey->pages, leaf); i++) {
            struct pages_node node;
            if (pages_node_at(&survey->pages, leaf, i, &node)) {
                use_free_list(survey, &node);
            }
        }
        leaf = pages_walk_next(&survey->walk, &number);
    }
    pages_walk_fini(&survey->walk);
    return HASHTRIE_OK;
}

static void use_seen(struct survey *survey, const struct pages_set *seen)
{
    for (uint64_t number = 0; number < survey->pages.page_count; number++) {
        if (pages_set_has(seen, number)) {
            use_page(survey, number);
        }
    }
}

static enum hashtrie_status survey_tree(struct survey *survey, uint64_t root, size_t key_size,
                                        bool is_main)
{
    if (!pages_walk_init(&survey->walk, &survey->mem, &survey->pages, root, key_size)) {
        return HASHTRIE_ENOMEM;
    }
    uint64_t number = 0;
    const unsigned char *leaf = pages_walk_next(&survey->walk, &number);
    while (leaf != NULL) {
        survey_leaf(survey, leaf, is_main);
        leaf = pages_walk_next(&survey->walk, &number);
    }
    use_seen(survey, &survey->walk.seen);
    pages_walk_fini(&survey->walk);
    return HASHTRIE_OK;
}

static enum hashtrie_status survey_trees(struct survey *survey)
{
    static const size_t key_sizes[DB_COUNT] = {
        [DB_META] = META_KEY_SIZE, [DB_ENDPOINTS] = ENDPOINT_KEY_SIZE, [DB_EDGES] = EDGE_KEY_SIZE,
        [DB_RUNS] = ROW_KEY_SIZE,  [DB_STATE] = ROW_KEY_SIZE,          [DB_AGE] = AGE_KEY_SIZE,
    };
    enum hashtrie_status status = survey_tree(survey, survey->pages.free_root, 0, false);
    if (status == HASHTRIE_OK) {
        status = survey_tree(survey, survey->pages.main_root, 0, true);
    }
    for (int db = 0; db < DB_COUNT && status == HASHTRIE_OK; db++) {
        status = survey_tree(survey, survey->roots[db], key_sizes[db], false);
    }
    if (status == HASHTRIE_OK) {
        status = use_free_lists(survey);
    }
    bool damaged = survey->faults > 0 || survey->pages.damaged_count > 0;
    return status == HASHTRIE_OK && damaged ? HASHTRIE_ECORRUPT : status;
}

static enum hashtrie_status survey_file(const char *directory, struct child_line *line)
{
    char path[ENV_PATH_BYTES_MAX];
    struct survey survey = {.line = line};
    if (!env_path(path, directory, "data.mdb")) {
        return HASHTRIE_EINVAL;
    }
    enum hashtrie_status status = pages_open(&survey.pages, path);
    if (status != HASHTRIE_OK) {
        return status;
    }
    mem_init(&survey.mem, SIZE_MAX);
    for (int db = 0; db < DB_COUNT; db++) {
        survey.roots[db] = PAGES_NONE;
    }
    survey.page = mem_alloc(&survey.mem, survey.pages.page_bytes);
    status = HASHTRIE_ENOMEM;
    if (survey.page != NULL && pages_set_init(&survey.used, &survey.mem, &survey.pages)) {
        status = survey_trees(&survey);
        pages_set_fini(&survey.used, &survey.mem);
    }
    mem_free(&survey.mem, survey.page, survey.pages.page_bytes);
    pages_close(&survey.pages);
    return status;
}

/* ---- All records ---- */

static void on_verified(void *user, uint64_t done, uint64_t total)
{
    child_tell(user, done, total);
}

static enum hashtrie_status verify_records(const struct probe *probe, struct child_line *line)
{
    struct hashtrie_reader *reader = NULL;
    enum hashtrie_status status = reader_open_alone(probe->directory, &reader);
    if (status != HASHTRIE_OK) {
        return status;
    }
    struct hashtrie_verify_options options = {.on_progress = on_verified, .user = line};
    struct hashtrie_verify_result result;
    status = hashtrie_reader_verify(reader, &options, &result);
    hashtrie_reader_close(reader);
    return status == HASHTRIE_OK && result.damage_count > 0 ? HASHTRIE_ECORRUPT : status;
}

enum hashtrie_status probe_all(void *user, struct child_line *line)
{
    const struct probe *probe = user;
    enum hashtrie_status status = probe_sample(user, line);
    if (status == HASHTRIE_OK) {
        status = survey_file(probe->directory, line);
    }
    return status == HASHTRIE_OK ? verify_records(probe, line) : status;
}

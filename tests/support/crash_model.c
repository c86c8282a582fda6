#include "support/crash_model.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"

enum { PATH_BYTES = 256, FULL_PATH_BYTES = 4096, PAGE = 4096, SECTOR = 512, LOCK_BYTES = 8192 };

/* A record in the trace, and what follows it. */
struct step {
    const struct disk_record *record;
    const char *path; /* Not terminated. */
    const char *path2;
    const unsigned char *data;
};

struct file {
    uint64_t number;
    bool is_lock;         /* LMDB's table of readers: mapped, and worthless after a crash. */
    unsigned char *bytes; /* What is durable. */
    size_t size;
    size_t *pending; /* Writes and truncations since then: numbers of steps. */
    size_t pending_count;
};

struct name {
    char path[PATH_BYTES];
    size_t file; /* SIZE_MAX: a folder. */
};

/* A change of names: the step, and for DISK_CREATE and DISK_RENAME the file. */
struct name_change {
    size_t step;
    size_t file; /* SIZE_MAX: a folder. */
};

struct crash_model {
    const unsigned char *trace;
    size_t trace_size;
    struct step *steps;
    size_t step_count;
    size_t next;
    struct file *files;
    size_t file_count;
    struct name *names; /* Durable ones. */
    size_t name_count;
    struct name *now; /* As the program sees them. */
    size_t now_count;
    struct name_change *changes; /* Pending. */
    size_t change_count;
    uint64_t mark_first;
    uint64_t mark_second;
};

/* One more element at the end of an array that only grows; tests have the memory. */
static void *grow(void *array, size_t count, size_t size)
{
    if ((count & (count - 1)) != 0) {
        return array; /* Room for the next power of two is there. */
    }
    void *grown = realloc(array, (count == 0 ? 1 : count * 2) * size);
    CHECK(grown != NULL);
    return grown;
}

/* ---- The trace ---- */

static bool parse(struct crash_model *model)
{
    size_t at = 0;
    while (at + sizeof(struct disk_record) <= model->trace_size) {
        struct disk_record *record = malloc(sizeof *record); /* The trace is not aligned. */
        CHECK(record != NULL);
        memcpy(record, model->trace + at, sizeof *record);
        struct step step = {.record = record};
        at += sizeof *record;
        step.path = (const char *)model->trace + at;
        at += record->path_size;
        step.path2 = (const char *)model->trace + at;
        at += record->path2_size;
        step.data = model->trace + at;
        at += record->kind == DISK_WRITE ? record->size : 0;
        model->steps = grow(model->steps, model->step_count, sizeof *model->steps);
        model->steps[model->step_count++] = step;
        if (record->path_size >= PATH_BYTES || record->path2_size >= PATH_BYTES) {
            return false;
        }
    }
    return at == model->trace_size;
}

struct crash_model *crash_model_new(const char *trace_path)
{
    struct stat status;
    int fd = open(trace_path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) != 0 || status.st_size == 0) {
        (void)fprintf(stderr, "%s: no trace: %s\n", trace_path, strerror(errno));
        return NULL;
    }
    struct crash_model *model = calloc(1, sizeof *model);
    CHECK(model != NULL);
    model->trace_size = (size_t)status.st_size;
    void *map = mmap(NULL, model->trace_size, PROT_READ, MAP_PRIVATE, fd, 0);
    (void)close(fd); /* Only read. */
    CHECK(map != MAP_FAILED);
    model->trace = map;
    if (!parse(model)) {
        (void)fprintf(stderr, "%s: not a whole trace\n", trace_path);
        crash_model_free(model);
        return NULL;
    }
    return model;
}

void crash_model_free(struct crash_model *model)
{
    if (model == NULL) {
        return;
    }
    for (size_t i = 0; i < model->step_count; i++) {
        free((void *)(uintptr_t)model->steps[i].record);
    }
    for (size_t i = 0; i < model->file_count; i++) {
        free(model->files[i].bytes);
        free(model->files[i].pending);
    }
    (void)munmap((void *)(uintptr_t)model->trace, model->trace_size);
    free(model->steps);
    free(model->files);
    free(model->names);
    free(model->now);
    free(model->changes);
    free(model);
}

size_t crash_model_records(const struct crash_model *model)
{
    return model->step_count;
}

const struct disk_record *crash_model_record(const struct crash_model *model, size_t number)
{
    REQUIRE(number < model->step_count);
    return model->steps[number].record;
}

uint64_t crash_model_mark_first(const struct crash_model *model)
{
    return model->mark_first;
}

uint64_t crash_model_mark_second(const struct crash_model *model)
{
    return model->mark_second;
}

/* ---- Files ---- */

/* The youngest with that number. */
static size_t find_file(const struct crash_model *model, uint64_t number)
{
    size_t at = model->file_count;
    while (at > 0 && model->files[at - 1].number != number) {
        at--;
    }
    CHECK(at > 0); /* The folder was empty at the start. */
    return at - 1;
}

static size_t size_after(size_t size, const struct disk_record *record)
{
    size_t end = record->offset + record->size;
    if (record->kind == DISK_TRUNCATE) {
        return record->size;
    }
    return end > size ? end : size;
}

static void resize(unsigned char **bytes, size_t *size, size_t wanted)
{
    if (wanted > *size) {
        *bytes = realloc(*bytes, wanted);
        CHECK(*bytes != NULL);
        memset(*bytes + *size, 0, wanted - *size);
    }
    *size = wanted;
}

static void apply(const struct step *step, unsigned char **bytes, size_t *size)
{
    resize(bytes, size, size_after(*size, step->record));
    if (step->record->kind == DISK_WRITE) {
        memcpy(*bytes + step->record->offset, step->data, step->record->size);
    }
}

static void file_sync(struct crash_model *model, struct file *file)
{
    for (size_t i = 0; i < file->pending_count; i++) {
        apply(&model->steps[file->pending[i]], &file->bytes, &file->size);
    }
    file->pending_count = 0;
    free(file->pending);
    file->pending = NULL;
}

static void file_add_pending(struct file *file, size_t step)
{
    file->pending = grow(file->pending, file->pending_count, sizeof *file->pending);
    file->pending[file->pending_count++] = step;
}

/* A write through O_DSYNC: it is durable, what was written to the file before need not be. */
static void write_durably(struct crash_model *model, struct file *file, size_t step)
{
    if (file->pending_count == 0) {
        apply(&model->steps[step], &file->bytes, &file->size);
        return;
    }
    /* Older writes must not cover it later on: the parts of them that do are dropped by applying
     * the step behind them again. */
    apply(&model->steps[step], &file->bytes, &file->size);
    file_add_pending(file, step);
}

/* ---- Names ---- */

static bool same_path(const char *name, const char *path, size_t size)
{
    return strlen(name) == size && memcmp(name, path, size) == 0;
}

static size_t find_name(const struct name *names, size_t count, const char *path, size_t size)
{
    size_t at = 0;
    while (at < count && !same_path(names[at].path, path, size)) {
        at++;
    }
    return at;
}

static void set_name(struct name *name, const char *path, size_t size, size_t file)
{
    memcpy(name->path, path, size);
    name->path[size] = '\0';
    name->file = file;
}

/* What is in a folder goes with it. */
static void move_contents(struct name *names, size_t count, const struct step *step)
{
    const struct disk_record *record = step->record;
    for (size_t i = 0; i < count; i++) {
        char *path = names[i].path;
        size_t size = strlen(path);
        if (size > record->path_size && path[record->path_size] == '/' &&
            memcmp(path, step->path, record->path_size) == 0) {
            size_t rest = size - record->path_size;
            CHECK(record->path2_size + rest < PATH_BYTES);
            memmove(path + record->path2_size, path + record->path_size, rest + 1);
            memcpy(path, step->path2, record->path2_size);
        }
    }
}

/* `names` has room for one more. */
static void apply_change(const struct crash_model *model, const struct name_change *change,
                         struct name *names, size_t *count)
{
    const struct step *step = &model->steps[change->step];
    const struct disk_record *record = step->record;
    size_t at = find_name(names, *count, step->path, record->path_size);
    if (record->kind == DISK_CREATE || record->kind == DISK_MKDIR) {
        *count += at == *count;
        set_name(&names[at], step->path, record->path_size, change->file);
        return;
    }
    if (at < *count) {
        names[at] = names[--*count];
    }
    if (record->kind == DISK_RENAME && record->path2_size > 0) {
        size_t old = find_name(names, *count, step->path2, record->path2_size);
        *count += old == *count;
        set_name(&names[old], step->path2, record->path2_size, change->file);
        move_contents(names, *count, step);
    }
}

static bool lies_in(const char *path, size_t path_size, const struct step *sync)
{
    const char *slash = memrchr(path, '/', path_size);
    size_t parent = slash == NULL ? 0 : (size_t)(slash - path);
    return parent == sync->record->path_size && memcmp(path, sync->path, parent) == 0;
}

/* A new name is durable once its folder is, wherever the file came from. */
static bool is_synced(const struct step *step, const struct step *sync)
{
    bool moved = step->record->kind == DISK_RENAME && step->record->path2_size > 0;
    return moved ? lies_in(step->path2, step->record->path2_size, sync)
                 : lies_in(step->path, step->record->path_size, sync);
}

static void names_sync(struct crash_model *model, const struct step *sync)
{
    size_t kept = 0;
    for (size_t i = 0; i < model->change_count; i++) {
        struct name_change change = model->changes[i];
        if (!is_synced(&model->steps[change.step], sync)) {
            model->changes[kept++] = change;
            continue;
        }
        model->names = grow(model->names, model->name_count, sizeof *model->names);
        apply_change(model, &change, model->names, &model->name_count);
    }
    model->change_count = kept;
}

static void add_change(struct crash_model *model, size_t number, size_t file)
{
    const struct step *step = &model->steps[number];
    struct name_change change = {number, file};
    if (step->record->kind == DISK_RENAME) {
        size_t at = find_name(model->now, model->now_count, step->path, step->record->path_size);
        CHECK(at < model->now_count);
        change.file = model->now[at].file;
    }
    model->changes = grow(model->changes, model->change_count, sizeof *model->changes);
    model->changes[model->change_count++] = change;
    model->now = grow(model->now, model->now_count, sizeof *model->now);
    apply_change(model, &change, model->now, &model->now_count);
}

/* ---- Steps ---- */

static bool ends_with(const struct step *step, const char *end)
{
    size_t size = strlen(end);
    return step->record->path_size >= size &&
           memcmp(step->path + step->record->path_size - size, end, size) == 0;
}

static void create_file(struct crash_model *model, size_t number)
{
    const struct step *step = &model->steps[number];
    model->files = grow(model->files, model->file_count, sizeof *model->files);
    model->files[model->file_count] =
        (struct file){.number = step->record->file, .is_lock = ends_with(step, "lock.mdb")};
    add_change(model, number, model->file_count++);
}

void crash_model_step(struct crash_model *model)
{
    REQUIRE(model->next < model->step_count);
    size_t number = model->next++;
    const struct step *step = &model->steps[number];
    struct file *file = NULL;
    switch ((enum disk_kind)step->record->kind) {
    case DISK_CREATE:
        create_file(model, number);
        break;
    case DISK_MKDIR:
    case DISK_RENAME:
    case DISK_UNLINK:
        add_change(model, number, SIZE_MAX);
        break;
    case DISK_WRITE:
    case DISK_TRUNCATE:
        file = &model->files[find_file(model, step->record->file)];
        if (step->record->durable != 0) {
            write_durably(model, file, number);
        } else {
            file_add_pending(file, number);
        }
        break;
    case DISK_SYNC:
        file_sync(model, &model->files[find_file(model, step->record->file)]);
        break;
    case DISK_SYNC_DIR:
        names_sync(model, step);
        break;
    case DISK_MAP:
        CHECK(model->files[find_file(model, step->record->file)].is_lock);
        break;
    case DISK_MARK:
        model->mark_first = step->record->offset;
        model->mark_second = step->record->size;
        break;
    default:
        CHECK(false);
    }
}

/* ---- Images ---- */

/* The first step that may not be undone: an O_DSYNC write is in the durable bytes already. */
static bool covers(const struct disk_record *record, size_t begin, size_t size)
{
    return record->kind == DISK_WRITE && record->offset < begin + size &&
           record->offset + record->size > begin;
}

/* The part of a write that falls into begin .. begin + size. */
static void apply_part(const struct step *step, unsigned char *bytes, size_t begin, size_t size)
{
    size_t from = step->record->offset > begin ? step->record->offset : begin;
    size_t end = step->record->offset + step->record->size;
    end = end < begin + size ? end : begin + size;
    memcpy(bytes + from, step->data + (from - step->record->offset), end - from);
}

struct image {
    unsigned char *bytes;
    size_t size;
};

/* Steps of the file that may be lost, the one in flight included. */
static size_t *pending_steps(const struct crash_model *model, size_t number, size_t *count)
{
    const struct file *file = &model->files[number];
    size_t *steps = calloc(file->pending_count + 1, sizeof *steps);
    CHECK(steps != NULL);
    *count = file->pending_count;
    if (file->pending_count > 0) {
        memcpy(steps, file->pending, file->pending_count * sizeof *steps);
    }
    if (model->next < model->step_count) {
        const struct disk_record *record = model->steps[model->next].record;
        bool writes = record->kind == DISK_WRITE || record->kind == DISK_TRUNCATE;
        if (writes && find_file(model, record->file) == number) {
            steps[(*count)++] = model->next;
        }
    }
    return steps;
}

/* Each block as it is after a random one of the writes to it, none of them included; but what went
 * through O_DSYNC stays. */
static void mix_blocks(const struct crash_model *model, const size_t *steps, size_t count,
                       size_t block, struct random *random, struct image *image)
{
    for (size_t begin = 0; begin < image->size; begin += block) {
        size_t size = image->size - begin < block ? image->size - begin : block;
        size_t covering = 0;
        size_t least = 0;
        for (size_t i = 0; i < count; i++) {
            const struct disk_record *record = model->steps[steps[i]].record;
            if (covers(record, begin, size)) {
                covering++;
                least = record->durable != 0 && steps[i] < model->next ? covering : least;
            }
        }
        if (covering == 0) {
            continue;
        }
        size_t keep = least + random_below(random, (uint32_t)(covering - least) + 1);
        for (size_t i = 0; i < count && keep > 0; i++) {
            if (covers(model->steps[steps[i]].record, begin, size)) {
                apply_part(&model->steps[steps[i]], image->bytes, begin, size);
                keep--;
            }
        }
    }
}

static struct image make_image(const struct crash_model *model, size_t number, enum crash_kind kind,
                               struct random *random)
{
    const struct file *file = &model->files[number];
    struct image image = {0};
    size_t count = 0;
    size_t *steps = pending_steps(model, number, &count);
    resize(&image.bytes, &image.size, file->size);
    if (file->size > 0) {
        memcpy(image.bytes, file->bytes, file->size);
    }
    size_t kept = kind == CRASH_ALL_LOST ? 0 : random_below(random, (uint32_t)count + 1);
    if (kind == CRASH_PREFIX) {
        for (size_t i = 0; i < kept; i++) {
            apply(&model->steps[steps[i]], &image.bytes, &image.size);
        }
        for (size_t i = kept; i < count; i++) {
            const struct step *step = &model->steps[steps[i]];
            if (step->record->durable != 0 && steps[i] < model->next) {
                apply(step, &image.bytes, &image.size);
            }
        }
    } else if (kind != CRASH_ALL_LOST) {
        size_t size = image.size; /* How long it is is lost or kept by itself. */
        for (size_t i = 0; i < kept; i++) {
            size = size_after(size, model->steps[steps[i]].record);
        }
        resize(&image.bytes, &image.size, size > file->size ? size : file->size);
        mix_blocks(model, steps, count, kind == CRASH_PAGES ? PAGE : SECTOR, random, &image);
    }
    free(steps);
    return image;
}

static bool write_file(const char *path, const unsigned char *bytes, size_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    bool good = fd >= 0;
    for (size_t done = 0; good && done < size;) {
        ssize_t part = write(fd, bytes + done, size - done);
        good = part > 0;
        done += good ? (size_t)part : 0;
    }
    return fd >= 0 && close(fd) == 0 && good;
}

/* Anything may be in it, or it is missing. */
static bool write_lock_file(const char *path, struct random *random)
{
    unsigned char bytes[LOCK_BYTES] = {0};
    uint32_t dice = random_below(random, 3);
    for (size_t i = 0; dice == 2 && i < sizeof bytes; i++) {
        bytes[i] = (unsigned char)random_next(random);
    }
    return dice == 0 || write_file(path, bytes, sizeof bytes);
}

/* The names that are left; the caller frees them. */
static struct name *left_names(const struct crash_model *model, enum crash_kind kind,
                               struct random *random, size_t *count)
{
    size_t changes = model->change_count;
    struct name *names = calloc(model->name_count + changes + 1, sizeof *names);
    CHECK(names != NULL);
    if (model->name_count > 0) {
        memcpy(names, model->names, model->name_count * sizeof *names);
    }
    *count = model->name_count;
    size_t kept = kind == CRASH_ALL_LOST ? 0 : random_below(random, (uint32_t)changes + 1);
    for (size_t i = 0; i < kept; i++) {
        apply_change(model, &model->changes[i], names, count);
    }
    return names;
}

/* All folders above it are there. */
static bool place_is_left(const struct name *names, size_t count, const char *path)
{
    for (const char *slash = strchr(path, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        if (find_name(names, count, path, (size_t)(slash - path)) == count) {
            return false;
        }
    }
    return true;
}

static bool write_name(const struct crash_model *model, const struct name *name,
                       enum crash_kind kind, struct random *random, const char *folder)
{
    char path[FULL_PATH_BYTES];
    int size = snprintf(path, sizeof path, "%s/%s", folder, name->path);
    CHECK(size > 0 && size < FULL_PATH_BYTES);
    if (name->file == SIZE_MAX) {
        return mkdir(path, 0700) == 0;
    }
    if (model->files[name->file].is_lock) {
        return write_lock_file(path, random);
    }
    struct image image = make_image(model, name->file, kind, random);
    bool good = write_file(path, image.bytes, image.size);
    free(image.bytes);
    return good;
}

static int by_path(const void *a, const void *b)
{
    const struct name *left = a;
    const struct name *right = b;
    return strcmp(left->path, right->path);
}

bool crash_model_image(const struct crash_model *model, enum crash_kind kind, struct random *random,
                       const char *folder)
{
    size_t count = 0;
    struct name *names = left_names(model, kind, random, &count);
    bool good = true;
    qsort(names, count, sizeof *names, by_path); /* A folder comes before what is in it. */
    for (size_t i = 0; i < count && good; i++) {
        if (place_is_left(names, count, names[i].path)) {
            good = write_name(model, &names[i], kind, random, folder);
        }
    }
    free(names);
    return good;
}

/* ---- Is the trace complete? ---- */

static bool file_is(const char *path, const unsigned char *bytes, size_t size)
{
    struct stat status;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool same = fd >= 0 && fstat(fd, &status) == 0 && (size_t)status.st_size == size;
    if (same && size > 0) {
        void *map = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
        same = map != MAP_FAILED && memcmp(map, bytes, size) == 0;
        (void)munmap(map, size);
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    return same;
}

bool crash_model_is(const struct crash_model *model, const char *folder)
{
    const struct name *names = model->now;
    bool same = true;
    for (size_t i = 0; i < model->now_count && same; i++) {
        if (names[i].file == SIZE_MAX || model->files[names[i].file].is_lock) {
            continue;
        }
        const struct file *file = &model->files[names[i].file];
        char path[FULL_PATH_BYTES];
        (void)snprintf(path, sizeof path, "%s/%s", folder, names[i].path);
        struct image image = {0};
        resize(&image.bytes, &image.size, file->size);
        if (file->size > 0) {
            memcpy(image.bytes, file->bytes, file->size);
        }
        for (size_t j = 0; j < file->pending_count; j++) {
            apply(&model->steps[file->pending[j]], &image.bytes, &image.size);
        }
        same = file_is(path, image.bytes, image.size);
        if (!same) {
            (void)fprintf(stderr, "the trace does not make %s\n", path);
        }
        free(image.bytes);
    }
    return same;
}

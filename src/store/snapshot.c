#include "store/snapshot.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "store/folder.h"

enum { FILE_MODE = 0600, DIRECTORY_MODE = 0700, NAMES_PER_SECOND = 10 };

static const char part_ending[] = ".part";

/* 0: a digit. */
static const char name_pattern[] = "snapshot-00000000T000000Z";

static bool is_name(const char *text)
{
    size_t size = sizeof name_pattern - 1;
    for (size_t i = 0; i < size; i++) {
        bool digit = text[i] >= '0' && text[i] <= '9';
        bool wanted = name_pattern[i] == '0' ? digit : text[i] == name_pattern[i];
        if (!wanted) {
            return false;
        }
    }
    const char *rest = text + size;
    return rest[0] == '\0' ||
           (rest[0] == '-' && rest[1] >= '1' && rest[1] <= '9' && rest[2] == '\0');
}

/* Keeps the list sorted; what is older than all of a full list is left out. */
static void add_name(struct snapshot_list *list, const char *text)
{
    size_t at = list->count;
    while (at > 0 && strcmp(list->names[at - 1].text, text) < 0) {
        at--;
    }
    if (at == SNAPSHOTS_LISTED_MAX) {
        return;
    }
    list->count += list->count < SNAPSHOTS_LISTED_MAX;
    memmove(list->names + at + 1, list->names + at, (list->count - at - 1) * sizeof *list->names);
    memcpy(list->names[at].text, text, strlen(text) + 1); /* is_name() bounds it. */
}

/* A link is none: what it leads to is not ours to delete. */
static bool is_folder(DIR *listing, const char *name)
{
    struct stat file;
    return fstatat(dirfd(listing), name, &file, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(file.st_mode);
}

enum hashtrie_status snapshot_list(const char *directory, struct snapshot_list *out)
{
    DIR *listing = opendir(directory);
    if (listing == NULL) {
        return env_status(errno);
    }
    out->count = 0;
    for (const struct dirent *entry = readdir(listing); entry != NULL; entry = readdir(listing)) {
        if (is_name(entry->d_name) && is_folder(listing, entry->d_name)) {
            add_name(out, entry->d_name);
        }
    }
    (void)closedir(listing); /* Only read. */
    return HASHTRIE_OK;
}

uint64_t snapshot_unix_s(const struct snapshot_name *name)
{
    struct tm time = {0};
    const char *end = strptime(name->text, "snapshot-%Y%m%dT%H%M%SZ", &time);
    time_t seconds = end == NULL ? 0 : timegm(&time);
    return seconds > 0 ? (uint64_t)seconds : 0;
}

/* ---- Folders ---- */

/* a/b or, with `slash` empty, ab. */
static bool join(char path[ENV_PATH_BYTES_MAX], const char *a, const char *slash, const char *b)
{
    int size = snprintf(path, ENV_PATH_BYTES_MAX, "%s%s%s", a, slash, b);
    return size > 0 && size < ENV_PATH_BYTES_MAX;
}

/* A rename or a new file is durable once its folder is synced. */
static enum hashtrie_status sync_parent(const char *path)
{
    char parent[ENV_PATH_BYTES_MAX];
    if (!join(parent, path, "", "")) {
        return HASHTRIE_EINVAL;
    }
    char *slash = strrchr(parent, '/');
    if (slash == NULL) {
        return folder_sync(".");
    }
    slash[slash == parent] = '\0'; /* The root keeps its slash. */
    return folder_sync(parent);
}

/* A folder of ours: what else is in it stays, and it with that. */
static enum hashtrie_status remove_folder(const char *path)
{
    static const char *const files[] = {"data.mdb", "lock.mdb"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char file[ENV_PATH_BYTES_MAX];
        if (join(file, path, "/", files[i]) && unlink(file) != 0 && errno != ENOENT) {
            return env_status(errno);
        }
    }
    return rmdir(path) == 0 ? HASHTRIE_OK : env_status(errno);
}

/* Not if somebody writes it. */
static void remove_left_over(const char *path)
{
    int folder = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (folder < 0) {
        return;
    }
    if (flock(folder, LOCK_EX | LOCK_NB) == 0) {
        (void)remove_folder(path); /* It takes space, no more. */
    }
    (void)close(folder); /* Nothing was written through it. */
}

static bool is_left_over(const char *text)
{
    size_t size = strlen(text);
    size_t ending = sizeof part_ending - 1;
    char name[SNAPSHOT_NAME_BYTES];
    if (size <= ending || size - ending >= sizeof name ||
        strcmp(text + size - ending, part_ending) != 0) {
        return false;
    }
    memcpy(name, text, size - ending);
    name[size - ending] = '\0';
    return is_name(name);
}

static enum hashtrie_status make_folder(const char *directory)
{
    char parent[ENV_PATH_BYTES_MAX];
    if (mkdir(directory, DIRECTORY_MODE) != 0) {
        return errno == EEXIST ? HASHTRIE_OK : env_status(errno);
    }
    return join(parent, directory, "/", "..") ? folder_sync(parent) : HASHTRIE_EINVAL;
}

enum hashtrie_status snapshot_folder_open(const char *directory)
{
    enum hashtrie_status status = make_folder(directory);
    if (status != HASHTRIE_OK) {
        return status;
    }
    DIR *listing = opendir(directory);
    if (listing == NULL) {
        return env_status(errno);
    }
    for (const struct dirent *entry = readdir(listing); entry != NULL; entry = readdir(listing)) {
        char path[ENV_PATH_BYTES_MAX];
        if (is_left_over(entry->d_name) && join(path, directory, "/", entry->d_name)) {
            remove_left_over(path);
        }
    }
    (void)closedir(listing); /* Only read. */
    return HASHTRIE_OK;
}

/* Renamed first: half a snapshot never has a whole one's name. */
static enum hashtrie_status remove_snapshot(const char *directory, const char *name)
{
    char path[ENV_PATH_BYTES_MAX];
    char part[ENV_PATH_BYTES_MAX];
    if (!join(path, directory, "/", name) || !join(part, path, "", part_ending)) {
        return HASHTRIE_EINVAL;
    }
    return rename(path, part) == 0 ? remove_folder(part) : env_status(errno);
}

enum hashtrie_status snapshot_prune(const char *directory, size_t keep)
{
    struct snapshot_list list;
    enum hashtrie_status status = snapshot_list(directory, &list);
    for (size_t i = keep; status == HASHTRIE_OK && i < list.count; i++) {
        status = remove_snapshot(directory, list.names[i].text);
    }
    return status;
}

/* ---- Writing one ---- */

static bool name_second(uint64_t unix_s, unsigned number, char name[SNAPSHOT_NAME_BYTES])
{
    time_t second = (time_t)unix_s;
    struct tm utc;
    size_t size = gmtime_r(&second, &utc) == NULL
                      ? 0
                      : strftime(name, SNAPSHOT_NAME_BYTES, "snapshot-%Y%m%dT%H%M%SZ", &utc);
    if (size > 0 && number > 0) {
        (void)snprintf(name + size, SNAPSHOT_NAME_BYTES - size, "-%u", number);
    }
    return size > 0 && is_name(name);
}

/* Later than all there are, whatever the clock says: else it would be the first to be pruned. */
enum hashtrie_status snapshot_new_path(const char *directory, char path[ENV_PATH_BYTES_MAX])
{
    struct snapshot_list list = {.count = 0};
    enum hashtrie_status status = snapshot_list(directory, &list);
    if (status != HASHTRIE_OK) {
        return status;
    }
    uint64_t second = (uint64_t)time(NULL);
    unsigned number = 0;
    if (list.count > 0 && snapshot_unix_s(&list.names[0]) >= second) {
        const char *suffix = list.names[0].text + sizeof name_pattern - 1;
        number = suffix[0] == '\0' ? 1 : (unsigned)(suffix[1] - '0') + 1;
        second = snapshot_unix_s(&list.names[0]) + number / NAMES_PER_SECOND;
        number %= NAMES_PER_SECOND;
    }
    char name[SNAPSHOT_NAME_BYTES];
    bool named = name_second(second, number, name) && join(path, directory, "/", name);
    return named ? HASHTRIE_OK : HASHTRIE_EINVAL;
}

static enum hashtrie_status make_part(struct snapshot_part *part)
{
    char file[ENV_PATH_BYTES_MAX];
    if (!join(file, part->part, "/", "data.mdb")) {
        return HASHTRIE_EINVAL;
    }
    remove_left_over(part->part);
    if (mkdir(part->part, DIRECTORY_MODE) != 0) {
        return env_status(errno);
    }
    part->folder = open(part->part, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (part->folder < 0 || flock(part->folder, LOCK_EX | LOCK_NB) != 0) {
        return env_status(errno);
    }
    part->file = open(file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, FILE_MODE);
    return part->file >= 0 ? HASHTRIE_OK : env_status(errno);
}

enum hashtrie_status snapshot_begin(const char *path, struct snapshot_part *out)
{
    *out = (struct snapshot_part){.folder = -1, .file = -1};
    if (!join(out->path, path, "", "")) {
        return HASHTRIE_EINVAL;
    }
    for (size_t size = strlen(out->path); size > 1 && out->path[size - 1] == '/'; size--) {
        out->path[size - 1] = '\0';
    }
    if (!join(out->part, out->path, "", part_ending)) {
        return HASHTRIE_EINVAL;
    }
    if (rmdir(out->path) != 0 && errno != ENOENT) { /* An empty folder may be in the way. */
        return errno == ENOTEMPTY || errno == ENOTDIR ? HASHTRIE_EEXIST : env_status(errno);
    }
    enum hashtrie_status status = make_part(out);
    return status == HASHTRIE_OK ? HASHTRIE_OK : snapshot_end(out, status);
}

enum hashtrie_status snapshot_end(struct snapshot_part *part, enum hashtrie_status status)
{
    if (status == HASHTRIE_OK && fsync(part->folder) != 0) {
        status = env_status(errno);
    }
    if (status == HASHTRIE_OK && rename(part->part, part->path) != 0) {
        status = env_status(errno);
    }
    if (status == HASHTRIE_OK) {
        status = sync_parent(part->path);
    } else if (part->folder >= 0) {
        (void)remove_folder(part->part); /* Else the next one to open the folder does it. */
    }
    if (part->file >= 0) {
        (void)close(part->file); /* Synced by who wrote it. */
    }
    if (part->folder >= 0) {
        (void)close(part->folder);
    }
    return status;
}

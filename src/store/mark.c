#include "store/mark.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hashtrie/store.h"

#include "base/clock.h"
#include "store/env.h"

enum {
    FILE_MODE = 0600,
    MARK_BYTES_MAX = 256, /* A line and what one crash appends; more is not looked at. */
    /* What is no plain file neither keeps the writer waiting nor leads it to another file. */
    OPEN_FLAGS = O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK,
};

static const char crashed[] = "crashed\n";

static bool stat_data(const char *directory, struct stat *file)
{
    char path[ENV_PATH_BYTES_MAX];
    return env_path(path, directory, "data.mdb") && stat(path, file) == 0;
}

static uint64_t changed_ns(const struct stat *file)
{
    return (uint64_t)file->st_mtim.tv_sec * CLOCK_NS_PER_S + (uint64_t)file->st_mtim.tv_nsec;
}

static bool read_text(const char *directory, char text[MARK_BYTES_MAX])
{
    char path[ENV_PATH_BYTES_MAX];
    int fd = env_path(path, directory, "mark") ? open(path, O_RDONLY | OPEN_FLAGS) : -1;
    if (fd < 0) {
        return false;
    }
    ssize_t size = read(fd, text, MARK_BYTES_MAX - 1);
    (void)close(fd); /* Only read. */
    text[size < 0 ? 0 : size] = '\0';
    return size > 0;
}

struct mark mark_read(const char *directory)
{
    char text[MARK_BYTES_MAX];
    struct stat file;
    struct mark mark = {.clean = false};
    if (!read_text(directory, text) || !stat_data(directory, &file)) {
        return mark;
    }
    uint64_t first = 0;
    uint64_t second = 0;
    /* NOLINTBEGIN(cert-err34-c): a number that does not fit is no number of ours. */
    if (sscanf(text, "clean %" SCNu64 " %" SCNu64, &first, &second) == 2) {
        mark.clean = first == (uint64_t)file.st_size && second == changed_ns(&file);
    } else if (sscanf(text, "open %" SCNu64 " %" SCNu64, &first, &second) == 2 &&
               first == (uint64_t)file.st_ino) {
        mark.crashes = second > UINT16_MAX ? UINT16_MAX : (unsigned)second;
        mark.crashes += strstr(text, crashed) != NULL;
    }
    /* NOLINTEND(cert-err34-c) */
    return mark;
}

/* In place: a text cut short is not clean. */
static int write_text(const char *directory, const char *text)
{
    char path[ENV_PATH_BYTES_MAX];
    if (!env_path(path, directory, "mark")) {
        return -1;
    }
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | OPEN_FLAGS, FILE_MODE);
    if (fd < 0) {
        return -1;
    }
    bool written = ftruncate(fd, 0) == 0;
    written = write(fd, text, strlen(text)) == (ssize_t)strlen(text) && written;
    if (!written && ftruncate(fd, 0) != 0) { /* An empty one is not clean, and none is not. */
        (void)unlink(path);
    }
    (void)fdatasync(fd); /* Of the rest LMDB takes care. */
    return fd;
}

void mark_open(const char *directory, unsigned crashes, int *fd)
{
    char text[MARK_BYTES_MAX];
    struct stat file;
    uint64_t inode = stat_data(directory, &file) ? (uint64_t)file.st_ino : 0;
    (void)snprintf(text, sizeof text, "open %" PRIu64 " %u\n", inode, crashes); /* Fits. */
    *fd = write_text(directory, text);
}

void mark_close(const char *directory)
{
    char text[MARK_BYTES_MAX];
    struct stat file;
    if (!stat_data(directory, &file)) {
        return;
    }
    (void)snprintf(text, sizeof text, "clean %" PRIu64 " %" PRIu64 "\n", (uint64_t)file.st_size,
                   changed_ns(&file)); /* Fits. */
    int fd = write_text(directory, text);
    if (fd >= 0) {
        (void)close(fd); /* What is not there is not clean. */
    }
}

void hashtrie_crash_mark_write(const struct hashtrie_crash_mark *mark)
{
    int fd = mark->fd;
    if (fd >= 0) {
        (void)!write(fd, crashed, sizeof crashed - 1); /* The process dies anyway. */
    }
}

/* Which process has the store's folder locked: /proc/locks says it. */
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "store/internal.h"

enum {
    LINE_BYTES_MAX = 256,
    LINES_MAX = 1 << 16 /* Of a machine with very many locks the first so many are read. */
};

/* "1: FLOCK  ADVISORY  WRITE 18900 fe:00:9977873 0 EOF": of this file, with its lock? */
static bool is_lock_of(const char *line, const struct stat *file, uint64_t *pid)
{
    unsigned major_number = 0;
    unsigned minor_number = 0;
    uint64_t inode = 0;
    /* NOLINTNEXTLINE(cert-err34-c): the kernel writes no number that does not fit. */
    int found = sscanf(line, "%*d: FLOCK %*s WRITE %" SCNu64 " %x:%x:%" SCNu64, pid, &major_number,
                       &minor_number, &inode);
    return found == 4 && inode == (uint64_t)file->st_ino && major_number == major(file->st_dev) &&
           minor_number == minor(file->st_dev);
}

uint64_t store_lock_holder(const char *directory)
{
    struct stat file;
    FILE *locks = stat(directory, &file) == 0 ? fopen("/proc/locks", "re") : NULL;
    if (locks == NULL) {
        return 0;
    }
    char line[LINE_BYTES_MAX];
    uint64_t pid = 0;
    bool found = false;
    for (int i = 0; i < LINES_MAX && !found && fgets(line, sizeof line, locks) != NULL; i++) {
        found = is_lock_of(line, &file, &pid);
    }
    (void)fclose(locks); /* Nothing was written to it. */
    return found ? pid : 0;
}

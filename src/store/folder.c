#include "store/folder.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/env.h"

enum { DIRECTORY_MODE = 0700 };

enum hashtrie_status folder_sync(const char *directory)
{
    int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return env_status(errno);
    }
    enum hashtrie_status status = fsync(fd) == 0 ? HASHTRIE_OK : env_status(errno);
    (void)close(fd); /* Nothing was written through it. */
    return status;
}

enum hashtrie_status folder_make(const char *directory)
{
    char parent[ENV_PATH_BYTES_MAX];
    if (mkdir(directory, DIRECTORY_MODE) != 0) {
        return errno == EEXIST ? HASHTRIE_OK : env_status(errno);
    }
    return env_path(parent, directory, "..") ? folder_sync(parent) : HASHTRIE_EINVAL;
}

void folder_remove(const char *directory)
{
    static const char *const names[] = {"data.mdb", "lock.mdb"};
    char path[ENV_PATH_BYTES_MAX];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (env_path(path, directory, names[i])) {
            (void)unlink(path); /* Most often there is none; it takes space, no more. */
        }
    }
    (void)rmdir(directory);
}

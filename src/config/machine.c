/*
 * Limits of the machine. A cgroup's limit binds everything below it, so the least of the limits on
 * the way from the process's cgroup to the root counts. In a container without its own cgroup
 * namespace the path in /proc/self/cgroup is the host's and names nothing here, while the
 * container's cgroup is mounted as the root: levels that cannot be read are skipped, and the root
 * is always read.
 */
#include "config/machine.h"

#include <inttypes.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    PATH_BYTES_MAX = 4096,
    FILE_BYTES_MAX = 64 * 1024,
    LINE_BYTES_MAX = 4096,
    DEPTH_MAX =
        64, /* Levels of cgroups; the kernel's own default maximum is far higher, use is not. */
    CPUS_MAX = 4096,
};

/* One way to find a kind of limit: the line of /proc/self/cgroup and where that tree is mounted. */
struct hierarchy {
    const char *controller; /* "" is v2's single line, "0::/path". */
    const char *mount;
};

static const struct hierarchy memory_hierarchies[] = {
    {"", "/sys/fs/cgroup"},
    {"", "/sys/fs/cgroup/unified"},
    {"memory", "/sys/fs/cgroup/memory"},
};
static const struct hierarchy cpu_hierarchies[] = {
    {"", "/sys/fs/cgroup"},
    {"", "/sys/fs/cgroup/unified"},
    {"cpu", "/sys/fs/cgroup/cpu"},
    {"cpu", "/sys/fs/cgroup/cpu,cpuacct"},
};

/* First bytes of root + path as a string; false if there is no such file. */
static bool read_file(const char *root, const char *path, char *text, size_t size)
{
    char full[PATH_BYTES_MAX];
    int length = snprintf(full, sizeof full, "%s%s", root, path);
    if (length < 0 || (size_t)length >= sizeof full) {
        return false;
    }
    FILE *file = fopen(full, "re");
    if (file == NULL) {
        return false;
    }
    size_t read = fread(text, 1, size - 1, file);
    text[read] = '\0';
    (void)fclose(file); /* Only read. */
    return read > 0;
}

/* A file of a cgroup: mount + cgroup + name. */
static bool read_level(const char *root, const char *mount, const char *cgroup, const char *name,
                       char *text, size_t size)
{
    char path[PATH_BYTES_MAX];
    int length = snprintf(path, sizeof path, "%s%s/%s", mount, cgroup, name);
    return length > 0 && (size_t)length < sizeof path && read_file(root, path, text, size);
}

static bool read_number(const char *text, uint64_t *out)
{
    char *end = NULL;
    if (*text < '0' || *text > '9') {
        return false; /* "max", "-1": no limit. */
    }
    *out = strtoull(text, &end, 10);
    return end != text;
}

/* True: `controller` is one of the comma list of `size` bytes. */
static bool lists_controller(const char *list, size_t size, const char *controller)
{
    size_t wanted = strlen(controller);
    size_t at = 0;
    do {
        const char *comma = memchr(list + at, ',', size - at);
        size_t length = comma != NULL ? (size_t)(comma - list) - at : size - at;
        if (length == wanted && memcmp(list + at, controller, wanted) == 0) {
            return true;
        }
        at += length + 1;
    } while (at < size);
    return false;
}

/* The process's cgroup in a hierarchy, from lines "7:cpu,cpuacct:/a/b"; "" for its root or if there
 * is none. */
static void find_cgroup(const char *root, const char *controller, char *out, size_t size)
{
    char text[FILE_BYTES_MAX];
    out[0] = '\0';
    if (!read_file(root, "/proc/self/cgroup", text, sizeof text)) {
        return;
    }
    char *rest = NULL;
    for (char *line = strtok_r(text, "\n", &rest); line != NULL;
         line = strtok_r(NULL, "\n", &rest)) {
        char *first = strchr(line, ':');
        char *second = first != NULL ? strchr(first + 1, ':') : NULL;
        if (second == NULL ||
            !lists_controller(first + 1, (size_t)(second - first) - 1, controller)) {
            continue;
        }
        const char *path = second + 1;
        size_t length = strlen(path);
        if (path[0] == '/' && length > 1 && length < size && strstr(path, "/..") == NULL) {
            memcpy(out, path, length + 1);
        }
        return;
    }
}

/* Cuts the last folder off; false at the root. */
static bool go_up(char *cgroup)
{
    char *slash = strrchr(cgroup, '/');
    if (slash == NULL) {
        return false;
    }
    *slash = '\0';
    return true;
}

static uint64_t memory_of_level(const char *root, const char *mount, const char *cgroup, bool v2)
{
    char text[LINE_BYTES_MAX];
    uint64_t limit = 0;
    const char *name = v2 ? "memory.max" : "memory.limit_in_bytes";
    if (!read_level(root, mount, cgroup, name, text, sizeof text) || !read_number(text, &limit)) {
        return UINT64_MAX;
    }
    return limit == 0 ? UINT64_MAX : limit;
}

/* Milli-CPUs. */
static uint64_t cpus_of_level(const char *root, const char *mount, const char *cgroup, bool v2)
{
    char text[LINE_BYTES_MAX];
    uint64_t quota = 0;
    uint64_t period = 0;
    if (v2) {
        if (!read_level(root, mount, cgroup, "cpu.max", text, sizeof text)) {
            return UINT64_MAX;
        }
        const char *space = strchr(text, ' ');
        if (space == NULL || !read_number(text, &quota) || !read_number(space + 1, &period)) {
            return UINT64_MAX;
        }
    } else {
        if (!read_level(root, mount, cgroup, "cpu.cfs_quota_us", text, sizeof text) ||
            !read_number(text, &quota) ||
            !read_level(root, mount, cgroup, "cpu.cfs_period_us", text, sizeof text) ||
            !read_number(text, &period)) {
            return UINT64_MAX;
        }
    }
    if (quota == 0 || period == 0 || quota > UINT64_MAX / 1000) {
        return UINT64_MAX;
    }
    return quota * 1000 / period;
}

/* The least limit over the given hierarchies and all levels; UINT64_MAX: none. */
static uint64_t least_limit(const char *root, const struct hierarchy *hierarchies, size_t count,
                            uint64_t (*limit_of)(const char *, const char *, const char *, bool))
{
    uint64_t least = UINT64_MAX;
    for (size_t i = 0; i < count; i++) {
        char cgroup[PATH_BYTES_MAX];
        find_cgroup(root, hierarchies[i].controller, cgroup, sizeof cgroup);
        bool v2 = hierarchies[i].controller[0] == '\0';
        for (int level = 0; level < DEPTH_MAX; level++) {
            uint64_t limit = limit_of(root, hierarchies[i].mount, cgroup, v2);
            least = limit < least ? limit : least;
            if (!go_up(cgroup)) {
                break;
            }
        }
    }
    return least;
}

static uint64_t physical_memory(const char *root)
{
    char text[FILE_BYTES_MAX];
    if (!read_file(root, "/proc/meminfo", text, sizeof text)) {
        return UINT64_MAX;
    }
    const char *line = strstr(text, "MemTotal:");
    uint64_t kib = 0;
    if (line == NULL) {
        return UINT64_MAX;
    }
    line += strlen("MemTotal:");
    line += strspn(line, " \t");
    return read_number(line, &kib) && kib > 0 ? kib * 1024 : UINT64_MAX;
}

uint64_t machine_memory_limit(const char *root)
{
    uint64_t limit =
        least_limit(root, memory_hierarchies,
                    sizeof memory_hierarchies / sizeof memory_hierarchies[0], memory_of_level);
    uint64_t physical = physical_memory(root);
    limit = physical < limit ? physical : limit;
    return limit == UINT64_MAX ? 0 : limit;
}

uint32_t machine_cpu_limit(const char *root, uint32_t affinity)
{
    uint64_t milli = least_limit(root, cpu_hierarchies,
                                 sizeof cpu_hierarchies / sizeof cpu_hierarchies[0], cpus_of_level);
    uint64_t quota = milli == UINT64_MAX ? UINT32_MAX : (milli + 999) / 1000;
    uint64_t cpus = quota < affinity ? quota : affinity;
    return cpus == 0 ? 1 : (uint32_t)cpus;
}

uint32_t machine_cpu_affinity(void)
{
    cpu_set_t sets[CPUS_MAX / CPU_SETSIZE];
    CPU_ZERO_S(sizeof sets, sets);
    int count = sched_getaffinity(0, sizeof sets, sets) == 0 ? CPU_COUNT_S(sizeof sets, sets) : 1;
    return count < 1 ? 1 : (uint32_t)count;
}

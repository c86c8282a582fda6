#include "proxy/host.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { FILE_BYTES_MAX = 2048, CPU_TIMES = 8, CPU_IDLE = 3, CPU_IOWAIT = 4, PERCENT = 100 };

/* The numbers behind the first `label` in what the file begins with. False: not `count` of them. */
static bool read_numbers(const char *path, const char *label, uint64_t *numbers, size_t count)
{
    char text[FILE_BYTES_MAX];
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        return false;
    }
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    (void)fclose(file); /* Only read. */
    const char *at = strstr(text, label);
    if (at == NULL) {
        return false;
    }
    at += strlen(label);
    for (size_t i = 0; i < count; i++) {
        char *end = NULL;
        numbers[i] = strtoull(at, &end, 10);
        if (end == at) {
            return false;
        }
        at = end;
    }
    return true;
}

/* user nice system idle iowait irq softirq steal. */
static bool read_cpu(uint64_t *busy, uint64_t *total)
{
    uint64_t times[CPU_TIMES];
    if (!read_numbers("/proc/stat", "cpu ", times, CPU_TIMES)) {
        return false;
    }
    *total = 0;
    for (int i = 0; i < CPU_TIMES; i++) {
        *total += times[i];
    }
    *busy = *total - times[CPU_IDLE] - times[CPU_IOWAIT];
    return true;
}

void host_init(struct host *host)
{
    uint64_t busy = 0;
    uint64_t total = 0;
    (void)read_cpu(&busy, &total); /* Else the first scrape looks back to the machine's start. */
    atomic_init(&host->busy, busy);
    atomic_init(&host->total, total);
}

static void write_cpu(struct host *host, struct metrics_writer *writer)
{
    uint64_t busy = 0;
    uint64_t total = 0;
    if (!read_cpu(&busy, &total)) {
        return;
    }
    uint64_t busy_before = atomic_exchange(&host->busy, busy);
    uint64_t total_before = atomic_exchange(&host->total, total);
    bool moved = total > total_before && busy >= busy_before;
    metrics_single(writer, "router_cpu_usage_percent", METRICS_GAUGE,
                   "CPU time of the whole machine in use since the last scrape.",
                   moved ? (double)(busy - busy_before) * PERCENT / (double)(total - total_before)
                         : 0);
}

static void write_memory(struct metrics_writer *writer)
{
    static const char path[] = "/proc/meminfo";
    uint64_t total = 0;
    uint64_t available = 0;
    if (read_numbers(path, "MemTotal:", &total, 1) &&
        read_numbers(path, "MemAvailable:", &available, 1) && total > 0 && available <= total) {
        metrics_single(writer, "router_memory_usage_percent", METRICS_GAUGE,
                       "Memory of the whole machine in use.",
                       (double)(total - available) * PERCENT / (double)total);
    }
}

static void write_disk(struct metrics_writer *writer)
{
    struct statvfs disk;
    if (statvfs("/", &disk) != 0 || disk.f_blocks == 0) {
        return;
    }
    double used = (double)disk.f_blocks - (double)disk.f_bfree;
    metrics_single(writer, "router_disk_usage_percent", METRICS_GAUGE,
                   "The root file system in use.", used * PERCENT / (used + (double)disk.f_bavail));
}

static double seconds_of(struct timeval time)
{
    return (double)time.tv_sec + (double)time.tv_usec / 1e6;
}

static void write_process(struct metrics_writer *writer)
{
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) == 0) {
        metrics_single(writer, "process_cpu_seconds_total", METRICS_COUNTER, "CPU time taken.",
                       seconds_of(usage.ru_utime) + seconds_of(usage.ru_stime));
    }
    uint64_t pages[2];
    if (read_numbers("/proc/self/statm", "", pages, 2)) {
        uint64_t page_size = (uint64_t)sysconf(_SC_PAGESIZE);
        metrics_single_u64(writer, "process_virtual_memory_bytes", METRICS_GAUGE, "Address space.",
                           pages[0] * page_size);
        metrics_single_u64(writer, "process_resident_memory_bytes", METRICS_GAUGE,
                           "Memory resident, pages of the store's file included.",
                           pages[1] * page_size);
    }
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        metrics_single_u64(writer, "process_max_fds", METRICS_GAUGE, "Limit of open files.",
                           files.rlim_cur);
    }
    struct stat descriptors; /* Linux 6.2 counts them there; listing them would take too long. */
    if (stat("/proc/self/fd", &descriptors) == 0 && descriptors.st_size > 0) {
        metrics_single_u64(writer, "process_open_fds", METRICS_GAUGE, "Open files.",
                           (uint64_t)descriptors.st_size);
    }
}

void host_scrape(struct host *host, struct metrics_writer *writer)
{
    write_cpu(host, writer);
    write_memory(writer);
    write_disk(writer);
    write_process(writer);
}

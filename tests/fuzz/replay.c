/* Runs a fuzz target over files, with any compiler: replay FILE|FOLDER .. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "fuzz/fuzz.h"

enum { PATH_BYTES_MAX = 4096, INPUT_BYTES_MAX = 16 * 1024 * 1024 };

/* From memory without a byte to spare, so that a sanitizer sees every read past the end. */
static int replay_file(const char *path)
{
    struct stat status;
    FILE *file = fopen(path, "rbe");
    if (file == NULL || fstat(fileno(file), &status) != 0 || status.st_size > INPUT_BYTES_MAX) {
        fprintf(stderr, "cannot read %s, or it is too large\n", path);
        exit(2);
    }
    size_t size = (size_t)status.st_size;
    uint8_t *bytes = malloc(size + (size == 0));
    if (bytes == NULL || fread(bytes, 1, size, file) != size) {
        fprintf(stderr, "cannot read %s\n", path);
        exit(2);
    }
    (void)fclose(file); /* Only read. */
    printf("%s\n", path);
    (void)fflush(stdout); /* The last line names the input that ended the process. */
    (void)LLVMFuzzerTestOneInput(bytes, size);
    free(bytes);
    return 1;
}

static int replay(const char *path)
{
    DIR *folder = opendir(path);
    if (folder == NULL) {
        return replay_file(path);
    }
    int count = 0;
    for (const struct dirent *entry = readdir(folder); entry != NULL; entry = readdir(folder)) {
        if (entry->d_name[0] != '.') {
            char name[PATH_BYTES_MAX];
            (void)snprintf(name, sizeof name, "%s/%s", path, entry->d_name); /* Cut: not found. */
            count += replay_file(name);
        }
    }
    (void)closedir(folder); /* Only read. */
    return count;
}

int main(int argc, char **argv)
{
    int count = 0;
    for (int i = 1; i < argc; i++) {
        count += replay(argv[i]);
    }
    printf("%d inputs replayed\n", count);
    return count > 0 ? 0 : 1; /* A test without inputs tests nothing. */
}

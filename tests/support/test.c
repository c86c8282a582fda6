#include "support/test.h"

#include <errno.h>
#include <ftw.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/random.h"

enum { OPEN_FOLDERS_MAX = 16, PATH_BYTES_MAX = 4096 };

uint64_t test_seed(void)
{
    const char *text = getenv("HASHTRIE_SEED");
    uint64_t seed =
        text != NULL && *text != '\0' ? strtoull(text, NULL, 0) : random_system_seed() >> 32;
    print_message("replay with HASHTRIE_SEED=%" PRIu64 "\n", seed);
    return seed;
}

size_t test_scale(void)
{
    const char *text = getenv("HASHTRIE_TEST_SCALE");
    size_t scale = text != NULL ? strtoul(text, NULL, 10) : 1;
    return scale > 0 ? scale : 1;
}

char *test_directory_make(void)
{
    const char *root = getenv("TMPDIR");
    char *path = test_path(root != NULL && *root != '\0' ? root : "/tmp", "hashtrie-test-XXXXXX");
    if (mkdtemp(path) == NULL) {
        fail_msg("cannot make a folder %s: %s", path, strerror(errno));
    }
    return path;
}

static int remove_one(const char *path, const struct stat *status, int kind, struct FTW *place)
{
    (void)status;
    (void)kind;
    (void)place;
    return remove(path);
}

void test_directory_remove(char *path)
{
    if (path == NULL) {
        return;
    }
    if (nftw(path, remove_one, OPEN_FOLDERS_MAX, FTW_DEPTH | FTW_PHYS) != 0) {
        print_error("cannot remove %s: %s\n", path, strerror(errno));
    }
    test_path_free(path);
}

char *test_path(const char *directory, const char *name)
{
    char *path = malloc(PATH_BYTES_MAX);
    assert_non_null(path);
    int length = snprintf(path, PATH_BYTES_MAX, "%s/%s", directory, name);
    assert_true(length > 0 && length < PATH_BYTES_MAX);
    return path;
}

void test_path_free(char *path)
{
    free(path);
}

static void make_parents(char *path, size_t from)
{
    for (char *slash = strchr(path + from, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdir(path, 0700) != 0 && errno != EEXIST) {
            fail_msg("cannot make %s: %s", path, strerror(errno));
        }
        *slash = '/';
    }
}

void test_file_write(const char *directory, const char *name, const void *bytes, size_t size)
{
    char *path = test_path(directory, name);
    make_parents(path, strlen(directory) + 1);
    FILE *file = fopen(path, "wbe");
    if (file == NULL) {
        fail_msg("cannot write %s: %s", path, strerror(errno));
        return;
    }
    size_t written = fwrite(bytes, 1, size, file);
    assert_int_equal(written, size);
    assert_int_equal(fclose(file), 0);
    test_path_free(path);
}

void test_file_write_text(const char *directory, const char *name, const char *text)
{
    test_file_write(directory, name, text, strlen(text));
}

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "support/test.h"

enum { FILE_BYTES = 40000 }; /* More than one read brings. */

/* A file of FILE_BYTES, open at its beginning. */
static int open_sample(void)
{
    FILE *file = tmpfile();
    assert_non_null(file);
    for (int i = 0; i < FILE_BYTES; i++) {
        assert_int_not_equal(fputc('a' + i % 26, file), EOF);
    }
    assert_int_equal(fflush(file), 0);
    int copy = dup(fileno(file));
    assert_true(copy >= 0);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(lseek(copy, 0, SEEK_SET), 0);
    return copy;
}

/* Behind one byte that is there already, with `room` in all. */
static bool read_sample(struct buf *buf, struct mem *mem, size_t room)
{
    int file = open_sample();
    buf_init(buf, mem, room);
    assert_true(buf_append(buf, "<", 1));
    bool read = buf_append_file(buf, file);
    int problem = errno;
    assert_int_equal(close(file), 0);
    errno = problem;
    return read;
}

static void a_file_is_appended_if_it_fits(void **state)
{
    (void)state;
    struct mem mem;
    struct buf buf;
    mem_init(&mem, SIZE_MAX);
    assert_true(read_sample(&buf, &mem, FILE_BYTES + 1));
    assert_int_equal(buf.size, FILE_BYTES + 1);
    assert_int_equal(buf.data[0], '<');
    for (int i = 0; i < FILE_BYTES; i++) {
        assert_int_equal(buf.data[i + 1], 'a' + i % 26);
    }
    buf_fini(&buf);
    assert_false(read_sample(&buf, &mem, FILE_BYTES));
    assert_int_equal(errno, EFBIG);
    buf_fini(&buf);
    mem_fini(&mem);
}

static void what_cannot_be_read_is_an_error(void **state)
{
    (void)state;
    struct mem mem;
    struct buf buf;
    mem_init(&mem, SIZE_MAX);
    buf_init(&buf, &mem, FILE_BYTES);
    int folder = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(folder >= 0);
    assert_false(buf_append_file(&buf, folder));
    assert_int_equal(errno, EISDIR);
    assert_int_equal(close(folder), 0);
    buf_fini(&buf);
    mem_fini(&mem);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_is_appended_if_it_fits),
        cmocka_unit_test(what_cannot_be_read_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

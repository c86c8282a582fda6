/*
 * What every C test includes first: cmocka in the order it needs, a seed that can be replayed, and
 * folders that vanish after the test.
 */
#ifndef HASHTRIE_TESTS_SUPPORT_TEST_H
#define HASHTRIE_TESTS_SUPPORT_TEST_H

/* cmocka.h uses types of these without including them: the order must stay. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include <stdbool.h>

/*
 * The seed of a random test: the number in the environment variable HASHTRIE_SEED, else a fresh
 * one. Prints it, so that a failure can be replayed with `HASHTRIE_SEED=number`.
 */
uint64_t test_seed(void);

/* How many times as much random tests do: HASHTRIE_TEST_SCALE, else 1. */
size_t test_scale(void);

/* Makes an empty folder under $TMPDIR (else /tmp). Give it back to test_directory_remove(). */
char *test_directory_make(void);
/* Removes the folder and all in it, and frees `path`. NULL is fine. */
void test_directory_remove(char *path);

/* `directory`/`name` as a string that the caller frees with test_path_free(). */
char *test_path(const char *directory, const char *name);
void test_path_free(char *path);

/* Writes a whole file; missing folders on the way are made. Fails the test if it cannot. */
void test_file_write(const char *directory, const char *name, const void *bytes, size_t size);
/* The same for text. */
void test_file_write_text(const char *directory, const char *name, const char *text);

#endif

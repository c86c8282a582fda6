/*
 * Checks for programming errors. Operating errors (bad input, full disk, dead peer) are values,
 * never checks.
 *
 * REQUIRE: a promise of the caller.  CHECK: a promise of this code, O(1).  Both are always on.
 * DCHECK:  walks a structure; on in debug, sanitizer and test builds (HASHTRIE_DCHECK).
 */
#ifndef HASHTRIE_BASE_CHECK_H
#define HASHTRIE_BASE_CHECK_H

_Noreturn void check_failed(const char *kind, const char *expression, const char *file, int line);

#define REQUIRE(condition) \
    ((condition) ? (void)0 : check_failed("REQUIRE", #condition, __FILE__, __LINE__))
#define CHECK(condition) \
    ((condition) ? (void)0 : check_failed("CHECK", #condition, __FILE__, __LINE__))

#ifdef HASHTRIE_DCHECK
#define DCHECK(condition) \
    ((condition) ? (void)0 : check_failed("DCHECK", #condition, __FILE__, __LINE__))
#else
#define DCHECK(condition) ((void)sizeof(condition))
#endif

#endif

/* Status codes, version and export macros of libhashtrie. */
#ifndef HASHTRIE_STATUS_H
#define HASHTRIE_STATUS_H

/* Of these headers. While MAJOR is 0, structs and calls may change with MINOR, and so does the
 * soname of the shared library; PATCH only mends. */
#define HASHTRIE_VERSION_MAJOR 0
#define HASHTRIE_VERSION_MINOR 1
#define HASHTRIE_VERSION_PATCH 0

/* Version of the store's file format. Another format is never read: see hashtrie_store_open(). */
#define HASHTRIE_FORMAT_VERSION 1

#if defined(__GNUC__)
#define HASHTRIE_API       __attribute__((visibility("default")))
#define HASHTRIE_NODISCARD __attribute__((warn_unused_result))
#else
#define HASHTRIE_API
#define HASHTRIE_NODISCARD
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define HASHTRIE_STATUS_MAP(X)                                                      \
    X(OK, 0, "success")                                                             \
    X(ENOMEM, -1, "out of memory")                                                  \
    X(EINVAL, -2, "invalid argument")                                               \
    X(ENOENT, -3, "not found")                                                      \
    X(EFULL, -4, "byte budget exhausted and nothing can be evicted")                \
    X(ECORRUPT, -5, "stored record failed its checksum or its bounds")              \
    X(EBUSY, -6, "in use or overloaded")                                            \
    X(EIO, -7, "input/output error")                                                \
    X(ENOSPC, -8, "no space left on the store's device")                            \
    X(EVERSION, -9, "store has another format version, chunk size or hash seed")    \
    X(EACCES, -10, "permission denied")                                             \
    X(ENETFS, -11, "the store is on a network file system, where LMDB is not safe") \
    X(EEXIST, -12, "already there")                                                 \
    X(EROFS, -13, "the store is on a read-only file system")

enum hashtrie_status {
#define HASHTRIE_STATUS_ENUM(name, value, text) HASHTRIE_##name = (value),
    HASHTRIE_STATUS_MAP(HASHTRIE_STATUS_ENUM)
#undef HASHTRIE_STATUS_ENUM
};

/* Any thread; O(1). Never NULL; static. */
HASHTRIE_API const char *hashtrie_strerror(enum hashtrie_status status);

/* "MAJOR.MINOR.PATCH" of the library that runs, and the store format that it writes. A program that
 * loads the library by hand compares the first two with its own. */
HASHTRIE_API const char *hashtrie_version(void);
HASHTRIE_API unsigned hashtrie_format_version(void);

#ifdef __cplusplus
}
#endif

#endif

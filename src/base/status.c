#include "hashtrie/status.h"

#define STRINGIFY_VALUE(value) STRINGIFY(value)
#define STRINGIFY(text)        #text

const char *hashtrie_strerror(enum hashtrie_status status)
{
    switch (status) {
#define HASHTRIE_STATUS_CASE(name, value, text) \
    case HASHTRIE_##name:                       \
        return text;
        HASHTRIE_STATUS_MAP(HASHTRIE_STATUS_CASE)
#undef HASHTRIE_STATUS_CASE
    }
    return "unknown status";
}

const char *hashtrie_version(void)
{
    return STRINGIFY_VALUE(HASHTRIE_VERSION_MAJOR) "." STRINGIFY_VALUE(
        HASHTRIE_VERSION_MINOR) "." STRINGIFY_VALUE(HASHTRIE_VERSION_PATCH);
}

unsigned hashtrie_format_version(void)
{
    return HASHTRIE_FORMAT_VERSION;
}

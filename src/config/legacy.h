/* Flags of the Python router whose feature is not here. Private to the room. */
#ifndef HASHTRIE_CONFIG_LEGACY_H
#define HASHTRIE_CONFIG_LEGACY_H

#include "config/options.h"

struct legacy_flag {
    const char *flag;
    const char *metavar; /* NULL: a switch. */
    const char *why;     /* It has no effect, or is refused. */
    bool refused;
};
extern const struct legacy_flag legacy_flags[];
extern const size_t legacy_flag_count;

/* The flag was given; `value` is "" for a switch. Notes that it has no effect, or refuses it. */
void legacy_take(struct loader *loader, const struct legacy_flag *flag, const char *value);
/* Why a value that the Python router knows for the option is none here; NULL: it is not such. */
const char *legacy_choice(enum option_id id, const char *text);

#endif

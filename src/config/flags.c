/* Flags, by the rules of Python's argparse: people's scripts were written for it. */
#include <string.h>

#include "base/check.h"
#include "config/legacy.h"

enum { NAME_BYTES_MAX = 48, CANDIDATES_TEXT_MAX = 1024, NEAR_ENOUGH = 3 };

/* All flags in one row: those of the table, then those of legacy.c. NULL: no flag. */
static const char *flag_at(size_t i)
{
    return i < OPTION_ID_COUNT ? options[i].flag : legacy_flags[i - OPTION_ID_COUNT].flag;
}

static size_t flag_count(void)
{
    return OPTION_ID_COUNT + legacy_flag_count;
}

/* NULL: it takes no value. */
static const char *metavar_at(size_t i)
{
    return i < OPTION_ID_COUNT ? option_metavar(&options[i])
                               : legacy_flags[i - OPTION_ID_COUNT].metavar;
}

/* Where a flag's name ends in an argument: at its '=' or its end. */
static size_t name_size(const char *argument)
{
    const char *equals = strchr(argument, '=');
    return equals != NULL ? (size_t)(equals - argument) : strlen(argument);
}

static bool starts_with(const char *flag, const char *start, size_t size)
{
    return strncmp(flag, start, size) == 0;
}

/* Edits (insert, delete, replace) from one name to the other; names longer than the limit are cut.
 */
static size_t edit_distance(const char *one, size_t one_size, const char *two, size_t two_size)
{
    size_t row[NAME_BYTES_MAX + 1];
    one_size = one_size > NAME_BYTES_MAX ? NAME_BYTES_MAX : one_size;
    two_size = two_size > NAME_BYTES_MAX ? NAME_BYTES_MAX : two_size;
    for (size_t k = 0; k <= two_size; k++) {
        row[k] = k;
    }
    for (size_t i = 1; i <= one_size; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t k = 1; k <= two_size; k++) {
            size_t best = diagonal + (one[i - 1] == two[k - 1] ? 0 : 1);
            best = row[k] + 1 < best ? row[k] + 1 : best;
            best = row[k - 1] + 1 < best ? row[k - 1] + 1 : best;
            diagonal = row[k];
            row[k] = best;
        }
    }
    return row[two_size];
}

static void refuse_unknown(struct loader *loader, const char *argument, size_t size)
{
    const char *nearest = NULL;
    size_t least = size / 2 > NEAR_ENOUGH ? size / 2 : NEAR_ENOUGH;
    for (size_t i = 0; i < flag_count(); i++) {
        const char *flag = flag_at(i);
        if (flag == NULL) {
            continue;
        }
        size_t distance = edit_distance(argument, size, flag, strlen(flag));
        if (distance < least) {
            least = distance;
            nearest = flag;
        }
    }
    if (nearest != NULL) {
        loader_error(loader, "unknown option %.*s; did you mean %s?", (int)size, argument, nearest);
    } else {
        loader_error(loader, "unknown option %.*s; --help lists all of them", (int)size, argument);
    }
}

static void refuse_ambiguous(struct loader *loader, const char *argument, size_t size)
{
    struct buf names;
    buf_init(&names, loader->config->mem, CANDIDATES_TEXT_MAX);
    for (size_t i = 0; i < flag_count(); i++) {
        const char *flag = flag_at(i);
        if (flag != NULL && starts_with(flag, argument, size)) {
            (void)buf_printf(&names, "%s%s", names.size == 0 ? "" : ", ", flag); /* A hint. */
        }
    }
    loader_error(loader, "option %.*s is ambiguous: it could be %.*s", (int)size, argument,
                 (int)names.size, names.size == 0 ? "" : names.data);
    buf_fini(&names);
}

/* -1, with the reason recorded: no option of that name. */
static int find_flag(struct loader *loader, const char *argument, size_t size)
{
    if (strncmp(argument, "-h", size) == 0 && size == 2) {
        return OPTION_HELP;
    }
    int found = -1;
    size_t matches = 0;
    bool long_form = size > 2 && argument[0] == '-' && argument[1] == '-';
    for (size_t i = 0; long_form && i < flag_count(); i++) {
        const char *flag = flag_at(i);
        if (flag == NULL || !starts_with(flag, argument, size)) {
            continue;
        }
        found = (int)i;
        matches++;
        if (strlen(flag) == size) {
            return found;
        }
    }
    if (matches == 0) {
        refuse_unknown(loader, argument, size);
    } else if (matches > 1) {
        refuse_ambiguous(loader, argument, size);
    }
    return matches == 1 ? found : -1;
}

/* An argument that is a flag, not a value: "-1" and "-" are values. */
static bool looks_like_flag(const char *argument)
{
    if (argument[0] != '-' || argument[1] == '\0') {
        return false;
    }
    return argument[1] < '0' || argument[1] > '9';
}

static void take(struct loader *loader, size_t i, const char *value)
{
    if (i >= OPTION_ID_COUNT) {
        legacy_take(loader, &legacy_flags[i - OPTION_ID_COUNT], value);
        return;
    }
    loader_set(loader, (enum option_id)i, options[i].kind == OPTION_SWITCH ? SWITCH_ON : value,
               CONFIG_FROM_FLAG);
}

/* Reads the flag at argv[i] and its value; returns how many arguments it took. */
static int read_flag(struct loader *loader, int i)
{
    const char *argument = loader->input->argv[i];
    size_t size = name_size(argument);
    const char *value = argument[size] == '=' ? argument + size + 1 : NULL;
    bool has_next = i + 1 < loader->input->argc && !looks_like_flag(loader->input->argv[i + 1]);
    int found = find_flag(loader, argument, size);
    if (found < 0) {
        return value == NULL && has_next ? 2 : 1; /* What follows was meant as its value. */
    }
    const char *flag = flag_at((size_t)found);
    const char *metavar = metavar_at((size_t)found);
    if (metavar == NULL && value != NULL) {
        loader_error(loader, "%s takes no value, but got \"%.100s\"", flag, value);
    } else if (metavar == NULL) {
        take(loader, (size_t)found, "");
    } else if (value != NULL) {
        take(loader, (size_t)found, value);
    } else if (has_next) {
        take(loader, (size_t)found, loader->input->argv[i + 1]);
        return 2;
    } else {
        loader_error(loader, "%s needs a value: %s %s", flag, flag, metavar);
    }
    return 1;
}

void flags_read(struct loader *loader)
{
    int i = 1;
    while (i < loader->input->argc) {
        const char *argument = loader->input->argv[i];
        if (looks_like_flag(argument)) {
            i += read_flag(loader, i);
        } else {
            loader_error(loader, "\"%.100s\" is no option: all options start with --", argument);
            i++;
        }
    }
}

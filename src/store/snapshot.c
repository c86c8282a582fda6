#include "store/snapshot.h"

#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "store/env.h"

/* 0: a digit. */
static const char name_pattern[] = "snapshot-00000000T000000Z";

static bool is_name(const char *text)
{
    size_t size = sizeof name_pattern - 1;
    for (size_t i = 0; i < size; i++) {
        bool digit = text[i] >= '0' && text[i] <= '9';
        bool wanted = name_pattern[i] == '0' ? digit : text[i] == name_pattern[i];
        if (!wanted) {
            return false;
        }
    }
    const char *rest = text + size;
    return rest[0] == '\0' ||
           (rest[0] == '-' && rest[1] >= '1' && rest[1] <= '9' && rest[2] == '\0');
}

/* Keeps the list sorted; what is older than all of a full list is left out. */
static void add_name(struct snapshot_list *list, const char *text)
{
    size_t at = list->count;
    while (at > 0 && strcmp(list->names[at - 1].text, text) < 0) {
        at--;
    }
    if (at == SNAPSHOTS_LISTED_MAX) {
        return;
    }
    list->count += list->count < SNAPSHOTS_LISTED_MAX;
    memmove(list->names + at + 1, list->names + at, (list->count - at - 1) * sizeof *list->names);
    memcpy(list->names[at].text, text, strlen(text) + 1); /* is_name() bounds it. */
}

enum hashtrie_status snapshot_list(const char *directory, struct snapshot_list *out)
{
    DIR *listing = opendir(directory);
    if (listing == NULL) {
        return env_status(errno);
    }
    out->count = 0;
    for (const struct dirent *entry = readdir(listing); entry != NULL; entry = readdir(listing)) {
        if (is_name(entry->d_name)) {
            add_name(out, entry->d_name);
        }
    }
    (void)closedir(listing); /* Only read. */
    return HASHTRIE_OK;
}

/* Folders that hold one store each. Private to the room. */
#ifndef HASHTRIE_STORE_FOLDER_H
#define HASHTRIE_STORE_FOLDER_H

#include "hashtrie/status.h"

/* Makes it if it is missing, for good: the name survives power loss. */
enum hashtrie_status folder_make(const char *directory);
/* The names in it survive power loss only once it is synced itself. */
enum hashtrie_status folder_sync(const char *directory);
/* Removes the store in it, if there is one, and then the folder, if nothing else is in it. */
void folder_remove(const char *directory);

#endif

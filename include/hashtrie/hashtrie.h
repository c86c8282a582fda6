/* libhashtrie: which LLM engine holds the KV cache of which prompt prefix. Includes all of it. */
#ifndef HASHTRIE_HASHTRIE_H
#define HASHTRIE_HASHTRIE_H

#include "hashtrie/chunk.h"
#include "hashtrie/maintenance.h"
#include "hashtrie/status.h"
#include "hashtrie/store.h"
#include "hashtrie/trie.h"

#endif

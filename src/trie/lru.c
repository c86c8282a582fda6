/*
 * The LRU list, through the nodes. Head: most recently used. No child is nearer the head than its
 * parent, so the tail is always a leaf.
 */
#include "trie/internal.h"

static void link_between(struct hashtrie *trie, uint32_t prev, uint32_t index, uint32_t next)
{
    struct node *node = node_at(trie, index);
    node->lru_prev = prev;
    node->lru_next = next;
    if (prev != NODE_NONE) {
        node_at(trie, prev)->lru_next = index;
    } else {
        trie->lru_head = index;
    }
    if (next != NODE_NONE) {
        node_at(trie, next)->lru_prev = index;
    } else {
        trie->lru_tail = index;
    }
}

void lru_push_front(struct hashtrie *trie, uint32_t index)
{
    link_between(trie, NODE_NONE, index, trie->lru_head);
}

void lru_insert_before(struct hashtrie *trie, uint32_t place, uint32_t index)
{
    link_between(trie, node_at(trie, place)->lru_prev, index, place);
}

void lru_insert_after(struct hashtrie *trie, uint32_t place, uint32_t index)
{
    link_between(trie, place, index, node_at(trie, place)->lru_next);
}

void lru_remove(struct hashtrie *trie, uint32_t index)
{
    struct node *node = node_at(trie, index);
    if (node->lru_prev != NODE_NONE) {
        node_at(trie, node->lru_prev)->lru_next = node->lru_next;
    } else {
        trie->lru_head = node->lru_next;
    }
    if (node->lru_next != NODE_NONE) {
        node_at(trie, node->lru_next)->lru_prev = node->lru_prev;
    } else {
        trie->lru_tail = node->lru_prev;
    }
}

/* Intrusive doubly linked list. The head is a `struct list` of its own; an item embeds a `struct
 * list`. */
#ifndef HASHTRIE_BASE_LIST_H
#define HASHTRIE_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct list {
    struct list *prev;
    struct list *next;
};

#define LIST_ITEM(link, type, member) ((type *)(void *)((char *)(link)-offsetof(type, member)))

/* They read as for loops do, and their first argument names a variable to be declared. */
/* NOLINTBEGIN(bugprone-macro-parentheses,readability-identifier-naming): see above. */
#define list_foreach(link, head) \
    for (struct list *link = (head)->next; link != (head); link = link->next)

/* The current item may be removed in the body. */
#define list_foreach_safe(link, head)                                                 \
    for (struct list *link = (head)->next, *link##_next = link->next; link != (head); \
         link = link##_next, link##_next = link->next)
/* NOLINTEND(bugprone-macro-parentheses,readability-identifier-naming) */

static inline void list_init(struct list *head)
{
    head->prev = head;
    head->next = head;
}

static inline bool list_empty(const struct list *head)
{
    return head->next == head;
}

static inline void list_insert_before(struct list *place, struct list *link)
{
    link->prev = place->prev;
    link->next = place;
    place->prev->next = link;
    place->prev = link;
}

static inline void list_push_back(struct list *head, struct list *link)
{
    list_insert_before(head, link);
}

/* Leaves `link` as an empty list of its own, so that a second removal is harmless. */
static inline void list_remove(struct list *link)
{
    link->prev->next = link->next;
    link->next->prev = link->prev;
    list_init(link);
}

#endif

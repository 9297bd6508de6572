/* list: intrusive, circular, doubly linked; the owner embeds a pl_list as head. */
#ifndef PL_BASE_LIST_H
#define PL_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct pl_list {
    struct pl_list *next, *prev;
};

#define PL_LIST_INIT(head)                                                                                             \
    {                                                                                                                  \
        &(head), &(head)                                                                                               \
    }
#define pl_container_of(pointer, type, member) ((type *)((char *)(pointer)-offsetof(type, member)))

static inline void pl_list_init(struct pl_list *list)
{
    list->next = list->prev = list;
}

static inline bool pl_list_empty(const struct pl_list *list)
{
    return list->next == list;
}

static inline void pl_list_append(struct pl_list *head, struct pl_list *item)
{
    item->prev = head->prev;
    item->next = head;
    head->prev->next = item;
    head->prev = item;
}

/* Takes ITEM out and leaves it empty, so that removing twice does no harm. */
static inline void pl_list_remove(struct pl_list *item)
{
    item->prev->next = item->next;
    item->next->prev = item->prev;
    pl_list_init(item);
}

/* The first item taken out, or NULL. */
static inline struct pl_list *pl_list_take(struct pl_list *head)
{
    struct pl_list *item = head->next;
    if (item == head) return NULL;
    pl_list_remove(item);
    return item;
}

/* Moves everything of FROM to the end of HEAD. */
static inline void pl_list_splice(struct pl_list *head, struct pl_list *from)
{
    if (pl_list_empty(from)) return;
    from->next->prev = head->prev;
    from->prev->next = head;
    head->prev->next = from->next;
    head->prev = from->prev;
    pl_list_init(from);
}

/* ITEM may be removed inside the body. */
#define pl_list_each(item, head)                                                                                       \
    for (struct pl_list *item = (head)->next, *item##_next = item->next; item != (head);                               \
         item = item##_next, item##_next = item->next)

#endif

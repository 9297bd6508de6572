/* fuzz_page: what the targets for status pages share. */
#ifndef FUZZ_PAGE_H
#define FUZZ_PAGE_H

#include "fuzz_wire.h"
#include "observe/reader.h"

/* A head that is in order, so that what is behind it counts. */
static inline void mend_head(uint8_t *page, size_t size)
{
    struct pl_status_head head;
    if (size < sizeof head) return;
    memcpy(&head, page, sizeof head);
    head.magic = PL_STATUS_MAGIC;
    head.version = PL_STATUS_VERSION;
    head.size = sizeof head / 64 * 64 + 64;
    head.counter_count = PL_COUNTERS;
    for (int i = 0; i < PL_COUNTERS; i++) strcpy(head.counter_names[i], pl_counter_table[i].name);
    memcpy(page, &head, sizeof head);
}

#endif

/* What market.c tells and market_reader.c hears. An empty message says that the market is closed. */
#ifndef QUOTE_H
#define QUOTE_H

#include <stdint.h>

enum { INSTRUMENTS = 16 };

struct quote {
    uint64_t number;     /* from 1, over all instruments */
    uint32_t instrument; /* 0 to INSTRUMENTS - 1 */
    uint32_t of_it;      /* the number among its instrument's quotes, from 1 */
    int64_t price;       /* in hundredths */
    uint32_t size;
    uint32_t reserved;
};

#endif

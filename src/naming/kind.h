/* kind: what names are of. Each kind has a folder of its own in the runtime directories. */
#ifndef PL_NAMING_KIND_H
#define PL_NAMING_KIND_H

enum pl_kind { PL_KIND_SERVICE = 0, PL_KIND_TOPIC = 1 };

static inline const char *pl_kind_folder(enum pl_kind kind)
{
    return kind == PL_KIND_TOPIC ? "topics" : "services";
}

static inline const char *pl_kind_word(enum pl_kind kind)
{
    return kind == PL_KIND_TOPIC ? "topic" : "service";
}

#endif

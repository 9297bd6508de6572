/* name: services, topics and methods: [a-z0-9][a-z0-9._-]*, at most PLAIT_NAME_MAX bytes. Methods
 * may also use capitals and '_' first, since they are often function names. */
#ifndef PL_WIRE_NAME_H
#define PL_WIRE_NAME_H

#include <stdbool.h>
#include <stddef.h>

/* 0 or -EINVAL with a text that names the first bad character and the rule. WHAT: "service". */
int pl_name_check(const char *what, const char *name, size_t size);
int pl_name_check_method(const char *name, size_t size);
bool pl_name_valid(const char *name, size_t size);
bool pl_name_valid_method(const char *name, size_t size);

/* Edit distance of at most 2, or one a prefix of the other: worth suggesting. */
bool pl_name_near(const char *a, const char *b);

#endif

/* document: a page of docs/ as a test reads it: what its tables say must be what the compiler says. */
#ifndef TESTS_HARNESS_DOCUMENT_H
#define TESTS_HARNESS_DOCUMENT_H

#include <stddef.h>

/* docs/NAME. Skips the test where the tests were moved away from their sources. Valid until the next call. */
const char *document_read(const char *name);

/* Fails the test unless what FORMAT says stands in the part of DOCUMENT that has the heading SECTION (of any depth),
 * before the next heading. */
void document_expect(const char *document, const char *section, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The row of a table that begins with OFFSET, SIZE ("4", "u32", ...) and NAME. */
void document_expect_field(const char *document, const char *section, size_t offset, const char *size,
                           const char *name);

#endif

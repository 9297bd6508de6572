#include "harness/document.h"

#include "harness/test.h"

#include <libgen.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static char text[1 << 18];

/* The compiler was given this file's path from the build directory, whose src/ holds the program. */
const char *document_read(const char *name)
{
    char self[PATH_MAX] = "", source[] = __FILE__, path[3 * PATH_MAX];
    CHECK(readlink("/proc/self/exe", self, sizeof self - 1) > 0);
    if (source[0] == '/') snprintf(path, sizeof path, "%s/../../docs/%s", dirname(source), name);
    else snprintf(path, sizeof path, "%s/../%s/../../docs/%s", dirname(self), dirname(source), name);
    FILE *file = fopen(path, "re");
    if (file == NULL) SKIP("docs/ is not where the build directory says");
    size_t size = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    CHECK(size > 0 && size < sizeof text - 1);
    text[size] = '\0';
    return text;
}

static const char *find_section(const char *document, const char *section)
{
    size_t size = strlen(section);
    for (const char *line = strstr(document, "\n#"); line != NULL; line = strstr(line + 1, "\n#")) {
        const char *title = line + 1 + strspn(line + 1, "#");
        if (*title == ' ' && strncmp(title + 1, section, size) == 0 && title[1 + size] == '\n') return title;
    }
    return NULL;
}

void document_expect(const char *document, const char *section, const char *format, ...)
{
    char row[512];
    va_list list;
    va_start(list, format);
    int length = vsnprintf(row, sizeof row, format, list);
    va_end(list);
    CHECK(length > 0 && (size_t)length < sizeof row);
    const char *start = find_section(document, section);
    if (start == NULL) test_fail(__FILE__, __LINE__, "the document lacks the section %s", section);
    const char *found = strstr(start, row), *end = strstr(start, "\n#");
    if (found == NULL || (end != NULL && found > end))
        test_fail(__FILE__, __LINE__, "the document lacks in %s\n%s", section, row);
}

void document_expect_field(const char *document, const char *section, size_t offset, const char *size, const char *name)
{
    document_expect(document, section, "\n| %zu | %s | %s", offset, size, name);
}

/* name: what may be called what. Names come from users and from peers, so a refused one is shown
 * escaped and shortened: an error text never carries foreign control characters to a terminal.
 */
#include "wire/name.h"
#include "base/error.h"
#include <errno.h>
#include <plait/plait.h>
#include <string.h>

enum { SHOWN_MAX = 48 };

static bool is_lower_or_digit(unsigned char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

static bool allowed_later(unsigned char c)
{
    return is_lower_or_digit(c) || c == '.' || c == '_' || c == '-';
}

static bool allowed(unsigned char c, bool first, bool method)
{
    if (method && ((c >= 'A' && c <= 'Z') || c == '_')) return true;
#ifdef PLAIT_PLANT_BUG /* what fuzz_name must find: the rule for the first character is gone */
    first = false;
#endif
    return first ? is_lower_or_digit(c) : allowed_later(c);
}

/* The offset of the first character that isn't allowed, or SIZE. */
static size_t first_bad(const char *name, size_t size, bool method)
{
    size_t i = 0;
    while (i < size && allowed((unsigned char)name[i], i == 0, method)) i++;
    return i;
}

static bool valid(const char *name, size_t size, bool method)
{
    return size > 0 && size <= PLAIT_NAME_MAX && first_bad(name, size, method) == size;
}

bool pl_name_valid(const char *name, size_t size)
{
    return valid(name, size, false);
}

bool pl_name_valid_method(const char *name, size_t size)
{
    return valid(name, size, true);
}

/* NAME between quotes, printable and at most SHOWN_MAX of it. */
static const char *show(const char *name, size_t size, char text[SHOWN_MAX * 4 + 8])
{
    static const char hex[] = "0123456789abcdef";
    size_t shown = size < SHOWN_MAX ? size : SHOWN_MAX;
    char *end = text;
    for (size_t i = 0; i < shown; i++) {
        unsigned char c = (unsigned char)name[i];
        if (c >= ' ' && c < 0x7f && c != '\\' && c != '\'') {
            *end++ = (char)c;
            continue;
        }
        *end++ = '\\';
        *end++ = 'x';
        *end++ = hex[c >> 4];
        *end++ = hex[c & 15];
    }
    memcpy(end, shown < size ? "..." : "", shown < size ? 4 : 1);
    return text;
}

static int check(const char *what, const char *name, size_t size, bool method)
{
    const char *rule = method ? "letters, digits and '_', and behind the first also '.' and '-'"
                              : "a-z and 0-9, and behind the first also '.', '_' and '-'";
    char text[SHOWN_MAX * 4 + 8], bad_text[SHOWN_MAX * 4 + 8];

    if (size == 0) return pl_error(-EINVAL, "the %s name is empty: give one of %s", what, rule);
    if (size > PLAIT_NAME_MAX)
        return pl_error(-EINVAL, "the %s name '%s' has %zu bytes: at most %d are allowed (PLAIT_NAME_MAX)", what,
                        show(name, size, text), size, PLAIT_NAME_MAX);
    size_t bad = first_bad(name, size, method);
    if (bad < size)
        return pl_error(-EINVAL, "the %s name '%s' has '%s' at position %zu: use %s", what, show(name, size, text),
                        show(name + bad, 1, bad_text), bad + 1, rule);
    return 0;
}

int pl_name_check(const char *what, const char *name, size_t size)
{
    return check(what, name, size, false);
}

int pl_name_check_method(const char *name, size_t size)
{
    return check("method", name, size, true);
}

/* Levenshtein's distance, row by row; A and B have at most PLAIT_NAME_MAX bytes. */
static size_t edit_distance(const char *a, size_t a_size, const char *b, size_t b_size)
{
    size_t row[PLAIT_NAME_MAX + 1];
    for (size_t j = 0; j <= b_size; j++) row[j] = j;
    for (size_t i = 0; i < a_size; i++) {
        size_t diagonal = row[0];
        row[0] = i + 1;
        for (size_t j = 0; j < b_size; j++) {
            size_t best = diagonal + (a[i] != b[j]);
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j + 1] + 1 < best) best = row[j + 1] + 1;
            diagonal = row[j + 1];
            row[j + 1] = best;
        }
    }
    return row[b_size];
}

bool pl_name_near(const char *a, const char *b)
{
    size_t a_size = strlen(a), b_size = strlen(b);
    size_t shorter = a_size < b_size ? a_size : b_size, longer = a_size < b_size ? b_size : a_size;

    if (shorter == 0 || longer > PLAIT_NAME_MAX) return false;
    if (memcmp(a, b, shorter) == 0) return true;
    if (longer - shorter > 2) return false;
    /* Two changes turn any two letters into any others: that is no likeness. */
    size_t distance = edit_distance(a, a_size, b, b_size);
    return distance <= 2 && distance < longer;
}

/* Property: a valid service name is safe as a file's name and on a command line (never hidden, never
 * an option, no '/', at most 100 bytes); check and valid agree; likeness is symmetric.
 *
 * Input: a name; for likeness its two halves. */
#include "base/error.h"
#include "fuzz_wire.h"
#include "wire/name.h"
#include <ctype.h>
#include <errno.h>
#include <plait/plait.h>

static void require_near_symmetric(const uint8_t *name, size_t size)
{
    size_t half = size / 2;
    char *a = exact_text(name, half), *b = exact_text(name + half, size - half);
    REQUIRE(pl_name_near(a, b) == pl_name_near(b, a));
    REQUIRE(pl_name_near(a, a) == (a[0] != '\0' && strlen(a) <= PLAIT_NAME_MAX));
    free(a);
    free(b);
}

static void require_safe(const char *name, size_t size)
{
    REQUIRE(size >= 1 && size <= PLAIT_NAME_MAX);
    REQUIRE(name[0] != '.' && name[0] != '-' && name[0] != '_');
    for (size_t i = 0; i < size; i++)
        REQUIRE(islower((unsigned char)name[i]) || isdigit((unsigned char)name[i]) || strchr("._-", name[i]));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *name = (char *)exact_copy(data, size);
    bool service = pl_name_valid(name, size), method = pl_name_valid_method(name, size);

    REQUIRE(pl_name_check("service", name, size) == (service ? 0 : -EINVAL));
    REQUIRE(pl_name_check_method(name, size) == (method ? 0 : -EINVAL));
    if (!method)
        for (const char *c = pl_error_text(); *c != '\0'; c++) REQUIRE(*c >= ' ' && *c < 0x7f);
    if (service) require_safe(name, size);
    if (service) REQUIRE(method);
    free(name);

    require_near_symmetric(data, size);
    return 0;
}

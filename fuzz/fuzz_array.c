/* Property: what is accepted as an array lies within its bytes, its type and shape give exactly its size, and
 * writing it again gives the same head.
 */
#include "base/error.h"
#include "fuzz_wire.h"
#include <plait/plait.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    plait_array array;
    uint8_t *body = exact_copy(data, size);
    int r = plait_array_read(body, size, &array);
    if (r < 0) {
        for (const char *c = pl_error_text(); *c != '\0'; c++) REQUIRE(*c >= ' ' && *c < 0x7f);
    } else {
        uint8_t head[PLAIT_ARRAY_HEAD];
        size_t measured;
        REQUIRE(array.data == body + PLAIT_ARRAY_HEAD && array.size == size - PLAIT_ARRAY_HEAD);
        REQUIRE(plait_array_measure(array.dtype, array.shape, array.dimensions, &measured) == 0 && measured == size);
        REQUIRE(plait_array_write(body, size, array.dtype, array.shape, array.dimensions, NULL) == 0);
        memcpy(head, data, sizeof(head));
        REQUIRE(memcmp(head, body, sizeof(head)) == 0);
    }
    free(body);
    return 0;
}

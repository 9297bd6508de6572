#include "base/options.h"

#include "base/error.h"

#include <errno.h>
#include <string.h>

int pl_options_read(void *known, size_t size, const void *options, const char *type)
{
    size_t given = size;
    memset(known, 0, size);
    if (options != NULL) {
        memcpy(&given, options, sizeof(given));
        if (given < sizeof(given) || given > 65536)
            return pl_error(-EINVAL, "%s.size is %zu: initialise the struct with its _INIT macro", type, given);
        for (size_t i = size; i < given; i++)
            if (((const unsigned char *)options)[i] != 0)
                return pl_error(-E2BIG, "%s asks for something that this version of libplait doesn't know", type);
        memcpy(known, options, given < size ? given : size);
    }
    memcpy(known, &size, sizeof(size));
    return 0;
}

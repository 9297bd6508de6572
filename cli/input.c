/* input: see input.h. */
#include "input.h"

#include "output.h"
#include <errno.h>
#include <plait/plait.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The buffer doubles, so that 1 GiB costs no more than twice its copy. */
int input_read(char **ret_data, size_t *ret_size)
{
    size_t room = 65536, size = 0;
    char *data = malloc(room);
    ssize_t n = 1;

    while (data && n != 0) {
        if (size == room) {
            char *larger = realloc(data, room * 2);
            if (!larger) break;
            data = larger;
            room *= 2;
        }
        n = read(STDIN_FILENO, data + size, room - size);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            complain("standard input: %s (give DATA as an argument, or redirect standard input)", strerror(errno));
            free(data);
            return -1;
        }
        size += (size_t)n;
        if (size > PLAIT_MESSAGE_MAX) {
            complain("standard input: longer than a message may be (PLAIT_MESSAGE_MAX, 1 GiB)");
            free(data);
            return -1;
        }
    }
    if (!data || n != 0) {
        complain("standard input: no memory for more than %zu bytes", size);
        free(data);
        return -1;
    }
    *ret_data = data;
    *ret_size = size;
    return 0;
}

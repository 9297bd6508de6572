/* visibility: included before every source of the library, which is compiled with everything
 * hidden; what the public headers declare becomes visible here, without marks in those headers. */
#pragma GCC visibility push(default)
#include <plait/plait.h>
#pragma GCC visibility pop

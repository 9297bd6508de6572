/* faulty: every allocation and every system call that plait makes fails once: the first, the second, and so on until
 * none is left.
 *
 * plait is linked statically into these programs, with --wrap for each function in faulty.c, so that nobody else's
 * calls fail.
 */
#ifndef TESTS_SYSTEM_FAULTY_H
#define TESTS_SYSTEM_FAULTY_H

#include "system/system.h"

enum { FAULTS_MOST = 2000 };
enum { FAULT_ALLOCATIONS = 1, FAULT_SYSTEM_CALLS = 2 };

/* Counts down over fork(): a countdown of 1 lets the next call fail. 0: none fails. */
struct fault {
    _Atomic int64_t countdown;
    _Atomic int fired;
    _Atomic int only; /* FAULT_ */
    const char *name; /* of what failed */
};
extern struct fault *fault; /* NULL: nothing fails in this process */

void fault_new(void);
void fault_arm(int kind, int nth);
void fault_free(void);

/* True: R is an error. One without a text fails the test. */
bool bad(int r, const char *what);

/* Runs WORK in a child for each N; ends when nothing is left that could fail. WORK may leave no descriptor and no
 * mapping behind. */
void put_through(int kind, void (*work)(void));

#endif

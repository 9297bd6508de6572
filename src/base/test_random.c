/* Numbers differ from call to call and from process to process. */
#include "base/random.h"

#include "harness/test.h"
#include <sys/mman.h>
#include <unistd.h>

TEST(numbers_do_not_repeat)
{
    uint64_t seen[256], either = 0, both = UINT64_MAX;
    for (int i = 0; i < 256; i++) {
        seen[i] = pl_random_u64();
        either |= seen[i];
        both &= seen[i];
        for (int j = 0; j < i; j++) CHECK(seen[j] != seen[i]);
    }
    CHECK(either == UINT64_MAX && both == 0); /* every bit is used */
}

TEST(a_forked_child_gets_other_numbers)
{
    uint64_t *from_child = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(from_child != MAP_FAILED);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        *from_child = pl_random_u64();
        _exit(0);
    }
    CHECK_INT(test_wait_child(child), 0);
    CHECK(*from_child != pl_random_u64());
    munmap(from_child, 4096);
}

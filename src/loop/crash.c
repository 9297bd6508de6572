/* crash: see crash.h. All that the handler touches is static or mapped for good. */
#include "loop/crash.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MEMBARRIER_EXPEDITED = 1 << 3, MEMBARRIER_REGISTER_EXPEDITED = 1 << 4 };
enum { SOCKETS = 1 << 20, WORD = 64, STACK = 32768 };

static const int signals[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT };

/* A bit for each descriptor; pages of it that are never used take no memory. */
static _Atomic uint64_t watched[SOCKETS / WORD];
static _Atomic int highest = -1;
_Atomic bool pl_crash_now;

static pid_t owner; /* 0: not armed */
static bool ordered;
static void (*tell)(int number, pid_t tid, void *context);
static void *tell_context;

void pl_crash_park(void)
{
    for (;;) pause();
}

/* relaxed, all of it: the handler runs in a thread that came by the sockets somehow; at worst it misses one that is
 * coming or going just now, whose end the kernel tells a little later */
void pl_crash_watch(int socket)
{
    if (socket < 0 || socket >= SOCKETS) return;
    atomic_fetch_or_explicit(&watched[socket / WORD], UINT64_C(1) << socket % WORD, memory_order_relaxed);
    int before = atomic_load_explicit(&highest, memory_order_relaxed);
    while (before < socket && !atomic_compare_exchange_weak_explicit(&highest, &before, socket, memory_order_relaxed,
                                                                     memory_order_relaxed)) {
    }
}

void pl_crash_unwatch(int socket)
{
    if (socket < 0 || socket >= SOCKETS) return;
    /* relaxed: as above */
    atomic_fetch_and_explicit(&watched[socket / WORD], ~(UINT64_C(1) << socket % WORD), memory_order_relaxed);
}

static void shut_down(void)
{
    /* relaxed: as above */
    int last = atomic_load_explicit(&highest, memory_order_relaxed);
    for (int word = 0; word <= last / WORD; word++) {
        uint64_t bits = atomic_load_explicit(&watched[word], memory_order_relaxed); /* relaxed: as above */
        for (; bits != 0; bits &= bits - 1) shutdown(word * WORD + __builtin_ctzll(bits), SHUT_RDWR);
    }
}

static void on_crash(int number)
{
    int saved = errno;
    struct sigaction usual = { .sa_handler = SIG_DFL };
    if (getpid() == owner) { /* and not a child that crashes on its own: its sockets are ours */
        bool first = !atomic_exchange(&pl_crash_now, true); /* F_CRASH2: against F_CRASH1 */
        if (!first) pl_crash_park();                        /* another thread is at it already */
        if (ordered) syscall(SYS_membarrier, MEMBARRIER_EXPEDITED, 0, 0);
        tell(number, (pid_t)syscall(SYS_gettid), tell_context);
        if (ordered) shut_down();
    }
    /* What faulted faults again when this returns; what was sent is sent again. Either way the core shows where. */
    sigaction(number, &usual, NULL);
    raise(number);
    errno = saved;
}

void pl_crash_arm(void (*note)(int number, pid_t tid, void *context), void *context)
{
    struct sigaction ours = { .sa_handler = on_crash, .sa_flags = SA_ONSTACK }, now;
    tell = note;
    tell_context = context;
    owner = getpid();
    /* Without it the others can't be held back in time, and the kernel tells of the end when it comes to it. */
    ordered = syscall(SYS_membarrier, MEMBARRIER_REGISTER_EXPEDITED, 0, 0) == 0;
    sigfillset(&ours.sa_mask);
    for (size_t i = 0; i < sizeof(signals) / sizeof(*signals); i++)
        if (sigaction(signals[i], NULL, &now) == 0 && !(now.sa_flags & SA_SIGINFO) && now.sa_handler == SIG_DFL)
            sigaction(signals[i], &ours, NULL);
}

bool pl_crash_armed(void)
{
    return owner != 0 && owner == getpid();
}

struct pl_crash_stack *pl_crash_stack_begin(void)
{
    stack_t stack = { .ss_size = STACK + (size_t)sysconf(_SC_MINSIGSTKSZ) }, before;
    if (!pl_crash_armed() || sigaltstack(NULL, &before) < 0 || !(before.ss_flags & SS_DISABLE)) return NULL;
    stack.ss_sp = mmap(NULL, stack.ss_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (stack.ss_sp == MAP_FAILED) return NULL;
    if (sigaltstack(&stack, NULL) == 0) return stack.ss_sp;
    munmap(stack.ss_sp, stack.ss_size);
    return NULL;
}

void pl_crash_stack_end(struct pl_crash_stack *stack)
{
    stack_t none = { .ss_flags = SS_DISABLE }, ours;
    if (stack == NULL || sigaltstack(&none, &ours) < 0) return;
    if (ours.ss_sp == (void *)stack) munmap(ours.ss_sp, ours.ss_size);
}

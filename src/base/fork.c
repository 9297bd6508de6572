/* fork: the hooks, the page that the kernel wipes, and the lock that lies in it.
 *
 * The lock is in the wiped page: whoever held it when the process was copied, the child finds it
 * free, after clone(2) as after fork(). For fork() the prepare handler takes it as well, so
 * that the list is copied whole. It is held for a few instructions; hence a spin lock.
 */
#include "base/fork.h"

#include "base/error.h"
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <sys/mman.h>
#include <unistd.h>

struct wiped {
    _Atomic uint32_t word;
    _Atomic uint32_t lock;
};

static struct wiped unwiped; /* before the first hook, and where the kernel gives no page */
static struct wiped *page = &unwiped;
_Atomic uint32_t *pl_fork_word = &unwiped.word;

static struct pl_list hooks = PL_LIST_INIT(hooks);
static uint32_t last_generation; /* under the lock; survives in the child, so that it never repeats */
static pthread_once_t prepared = PTHREAD_ONCE_INIT;
static int prepare_error;

static void lock_hooks(void)
{
    /* FKA1: pairs with FKR1, the list as the last holder left it */
    while (atomic_exchange_explicit(&page->lock, 1, memory_order_acquire) != 0) sched_yield();
}

static void unlock_hooks(void)
{
    /* FKR1: pairs with FKA1 in lock_hooks */
    atomic_store_explicit(&page->lock, 0, memory_order_release);
}

/* Runs in the child of fork(), in its only thread. The hooks go to a list of their own, so that
 * one may remove any other. */
static void run_hooks(void)
{
    struct pl_list todo = PL_LIST_INIT(todo);
    /* relaxed: nobody else is here; and where the page is `unwiped`, this is the wiping */
    atomic_store_explicit(&page->word, 0, memory_order_relaxed);
    unlock_hooks();
    pl_list_splice(&todo, &hooks);
    for (struct pl_list *link = pl_list_take(&todo); link != NULL; link = pl_list_take(&todo)) {
        struct pl_fork_hook *hook = pl_container_of(link, struct pl_fork_hook, link);
        hook->in_child(hook);
    }
}

static void prepare(void)
{
    size_t size = (size_t)sysconf(_SC_PAGESIZE);
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory != MAP_FAILED && madvise(memory, size, MADV_WIPEONFORK) == 0) {
        page = memory;
        pl_fork_word = &page->word;
    } else if (memory != MAP_FAILED) {
        munmap(memory, size); /* a kernel before 4.14: the atfork handler alone has to do */
    }
    prepare_error = -pthread_atfork(lock_hooks, unlock_hooks, run_hooks);
}

int pl_fork_add(struct pl_fork_hook *hook)
{
    pthread_once(&prepared, prepare);
    if (prepare_error < 0) return pl_error(prepare_error, "cannot watch for fork: %s", pl_error_word(prepare_error));
    lock_hooks();
    /* relaxed: written under the lock, by the first hook of this process */
    uint32_t generation = atomic_load_explicit(&page->word, memory_order_relaxed);
    if (generation == 0) {
        generation = ++last_generation;
        atomic_store_explicit(&page->word, generation, memory_order_relaxed);
    }
    hook->generation = generation;
    pl_list_append(&hooks, &hook->link);
    unlock_hooks();
    return 0;
}

void pl_fork_remove(struct pl_fork_hook *hook)
{
    if (hook == NULL) return;
    lock_hooks(); /* also for looking: a neighbour that is added or removed writes into our link */
    if (hook->link.next != NULL) pl_list_remove(&hook->link);
    unlock_hooks();
}

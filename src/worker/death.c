/* death: what a worker died of and what it was doing, from its load page, its status page and what it said. */
#include "observe/reader.h"
#include "worker/worker.h"

#include <stdio.h>
#include <string.h>

/* The thread that matters: THREAD if it handles something, else the one that has longest. */
static const struct pl_status_thread_picture *busiest(const struct pl_status_picture *picture, uint32_t thread,
                                                      unsigned *ret_busy)
{
    const struct pl_status_thread_picture *found = NULL;
    *ret_busy = 0;
    for (size_t i = 0; i < picture->thread_count; i++) {
        const struct pl_status_thread_picture *one = &picture->threads[i];
#ifdef PLAIT_PLANT_BUG /* what fuzz_death must find: a thread is believed to handle what the page lists */
        if (one->method == 0) continue;
#else
        if (one->method == 0 || one->service >= picture->service_count) continue;
#endif
        ++*ret_busy;
        bool first = found == NULL || one->tid == thread;
        if (first || (found->tid != thread && one->since < found->since)) found = one;
    }
    return found;
}

/* The NUMBERth word of METHODS, from 1; what is behind the last is empty. */
static const char *word(const char *methods, uint32_t number)
{
    for (; number > 1 && *methods != 0; number--) {
        methods += strcspn(methods, " ");
        methods += *methods != 0;
    }
    return methods;
}

void pl_worker_tell_work(const struct pl_worker *worker, uint32_t thread, char *text, size_t size)
{
    struct pl_status_picture picture;
    unsigned busy;
    text[0] = 0;
    if (worker->page_fd < 0 || pl_status_read(&picture, worker->page_fd) < 0) return;
    const struct pl_status_thread_picture *one = busiest(&picture, thread, &busy);
    if (one != NULL) {
        const char *method = word(picture.services[one->service].texts[PL_STATUS_TEXT_METHODS], one->method);
        char more[32] = "";
        if (busy > 1) snprintf(more, sizeof(more), " (and %u more)", busy - 1);
        snprintf(text, size, "call %llu of %s/%.*s%s in progress", (unsigned long long)one->handled,
                 picture.services[one->service].name, (int)strcspn(method, " "), method, more);
    }
    pl_status_picture_deinit(&picture);
}

void pl_worker_tell_death(const struct pl_worker *worker, uint64_t death, char *text, size_t size)
{
    char how[64], work[300];
    pl_worker_tell_work(worker, pl_death_thread(death), work, sizeof(work));
    pl_death_text(death, how, sizeof(how));
    const char *unasked =
        !(death & PL_DEATH_SIGNAL) && pl_death_number(death) == 0 ? " (nobody had asked it to end)" : "";
    snprintf(text, size, "worker %u (pid %d) died: %s%s%s%s%s%s", worker->number, (int)worker->pid, how, unasked,
             work[0] ? ", " : "", work, worker->failure.code ? ": " : "",
             worker->failure.code ? worker->failure.text : "");
}

/* tasks: the threads of any process, as /proc shows them. */
#ifndef CLI_TASKS_H
#define CLI_TASKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TASK_NAME 32 /* bytes of a thread's name (the kernel keeps 15) and of a wait channel's */

struct task {
    int32_t tid;
    char name[TASK_NAME];
    char state;           /* R S D T t Z X I */
    uint64_t cpu_ns;      /* user and system time */
    double percent;       /* of one CPU, between the two looks of tasks_read() */
    int32_t cpu;          /* where it ran last */
    char wait[TASK_NAME]; /* kernel function that it sleeps in; "" if it runs or the kernel doesn't say */
};

/* The threads of PID by id, with what they used of the CPU within INTERVAL ms; *ret_tasks is to be freed. A thread that
 * comes or goes meanwhile may be missing. 0, -ESRCH (no such process), -EACCES, -ENOMEM, -EMFILE. */
int tasks_read(int32_t pid, int64_t interval, struct task **ret_tasks, size_t *ret_count);

const char *task_state_name(char state);

#endif

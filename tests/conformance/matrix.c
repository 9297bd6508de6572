/* matrix: transports, columns, and the tests that they make with the behaviours. */
#include "conformance/conformance.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static const struct transport transports[] = {
    { "shm", "shm", PLAIT, NULL, "" },
    { "shm=off", "unix", PLAIT, NULL, "shm=off" },
    { "unix+shm", "shm", PLAIT, "unix://%s/", "" },
    { "unix", "unix", PLAIT | STREAMED, "unix://%s/", "shm=off" },
    { "tcp4", "tcp", PLAIT | STREAMED, "tcp://127.0.0.1:0", "" },
    { "tcp6", "tcp", PLAIT | STREAMED, "tcp://[::1]:0", "" },
    { "udp4", "udp", DATAGRAM, "udp://127.0.0.1:0", "" },
    { "udp6", "udp", DATAGRAM, "udp://[::1]:0", "" },
};
static const struct column *const columns[] = {
    &column_c,
#ifdef CONFORMANCE_CPP /* a compiler for it was there */
    &column_cpp,
#endif
#ifdef CONFORMANCE_PYTHON /* the package was built */
    &column_python,
#endif
    &column_command, &column_socket, &column_plain, &column_workers,
};

enum { ROWS = sizeof(transports) / sizeof(transports[0]), KINDS = sizeof(columns) / sizeof(columns[0]) };

struct count {
    int declared;
    atomic_int passed;
};

/* Shared with the processes in which the tests run. */
static struct count (*counts)[FRAMINGS][KINDS];

struct cell_test {
    struct test_case test;
    struct cell cell;
    const struct behaviour *behaviour;
    struct count *count;
};

static struct behaviour *behaviours, **behaviours_end = &behaviours;

void behaviour_register(struct behaviour *behaviour)
{
    *behaviours_end = behaviour;
    behaviours_end = &behaviour->next;
}

static void run_current(void)
{
    const struct cell_test *own = (const struct cell_test *)test_current();
    own->behaviour->run(&own->cell);
    atomic_fetch_add(&own->count->passed, 1); /* counts only: what is behind it is told by the process's end */
}

static void declare(const struct behaviour *behaviour, const struct cell *cell, struct count *count)
{
    char *name = NULL;
    struct cell_test *own = calloc(1, sizeof(*own));
    if (own == NULL || asprintf(&name, "%s/%s/%s/%s", behaviour->name, cell->transport->name,
                                framing_name(cell->framing), cell->column->name) < 0)
        abort();
    *own = (struct cell_test){ { name, run_current, NULL }, *cell, behaviour, count };
    count->declared++;
    test_register(&own->test);
}

/* The rows are shared out among several runs, which go on at once: those whose transport is on the network, or not. */
static bool chosen(int row)
{
    const char *part = getenv("CONFORMANCE_PART");
    bool network = strncmp(transports[row].shown, "tcp", 3) == 0 || strncmp(transports[row].shown, "udp", 3) == 0;
    return part == NULL || network == (strcmp(part, "network") == 0);
}

static bool exists(int row, int framing, int kind)
{
    return chosen(row) && transports[row].framings & columns[kind]->framings & 1u << framing;
}

static void each_cell(void (*seen)(struct cell *cell, struct count *count))
{
    for (int row = 0; row < ROWS; row++)
        for (int framing = 0; framing < FRAMINGS; framing++)
            for (int kind = 0; kind < KINDS; kind++) {
                struct cell cell = { &transports[row], (enum framing)framing, columns[kind] };
                if (exists(row, framing, kind)) seen(&cell, &counts[row][framing][kind]);
            }
}

static void fill(struct cell *cell, struct count *count)
{
    for (const struct behaviour *behaviour = behaviours; behaviour; behaviour = behaviour->next)
        if (behaviour->framings & 1u << cell->framing && (behaviour->needs & ~cell->column->can) == 0)
            declare(behaviour, cell, count);
}

static void print_row(int row, char *missing, size_t size)
{
    printf("%-9s", transports[row].name);
    for (int framing = 0; framing < FRAMINGS; framing++) {
        printf(" |");
        for (int kind = 0; kind < KINDS; kind++) {
            struct count *count = &counts[row][framing][kind];
            int passed = atomic_load(&count->passed); /* relaxed would do: all who counted have ended */
            char text[32] = "-";
            if (exists(row, framing, kind)) {
                snprintf(text, sizeof(text), passed == count->declared ? "%d" : "%d/%d!", passed, count->declared);
                if (passed < count->declared || passed == 0)
                    snprintf(missing + strlen(missing), size - strlen(missing), " %s/%s/%s", transports[row].name,
                             framing_name((enum framing)framing), columns[kind]->name);
            }
            printf(" %8s", text);
        }
    }
    printf("\n");
}

static void print_matrix(void)
{
    char missing[900] = "";
    printf("%-9s", "");
    for (int framing = 0; framing < FRAMINGS; framing++)
        printf(" | %-*s", 9 * KINDS - 1, framing_name((enum framing)framing));
    printf("\n%-9s", "");
    for (int framing = 0; framing < FRAMINGS; framing++) {
        printf(" |");
        for (int kind = 0; kind < KINDS; kind++) printf(" %8s", columns[kind]->name);
    }
    printf("\n");
    for (int row = 0; row < ROWS; row++)
        if (chosen(row)) print_row(row, missing, sizeof(missing));
    fflush(stdout);
    if (missing[0]) test_fail(__FILE__, __LINE__, "cells that are empty or have tests that didn't pass:%s", missing);
}

__attribute__((constructor(300))) static void cross(void)
{
    static struct test_case huge = { "a_message_of_1_GiB_passes_through_shared_memory", pass_1_GiB, NULL };
    static struct test_case last = { "every_cell_of_the_matrix_is_filled", print_matrix, NULL };
    counts = mmap(NULL, sizeof(*counts) * ROWS, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (counts == MAP_FAILED) abort();
    each_cell(fill);
    if (chosen(0)) test_register(&huge);
    test_register(&last);
}

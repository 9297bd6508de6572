/* loan_server: what the tests of loans share: a server that looks at bodies where they lie, and bodies that say
 * themselves whether they are whole. */
#ifndef TESTS_SYSTEM_LOAN_SERVER_H
#define TESTS_SYSTEM_LOAN_SERVER_H

#include "system/system.h"

enum { MIB = 1 << 20 };

/* What server and director share. */
struct shared {
    _Atomic uint32_t ready, stop, release, deferred, answered, bad;
    _Atomic uint64_t inode;  /* of the memory in which the last "look" saw its body; 0: private */
    _Atomic uint64_t faults; /* the server's, so far */
};

struct shared *shared_new(void);

/* The server NAME; with PORT_PIPE >= 0 it listens on TCP, too, and writes the URL there. Its methods: "look" (notes the
 * memory that the body lies in), "touch" (notes its page faults), "check" (answers the body's first word), "make" (the
 * body is {size, seed}, the answer is lent), "defer" (is answered when `release` is raised). */
pid_t start_server(const char *name, struct shared *shared, int port_pipe);
/* Ends it in order, checks that it saw no bad body, unmaps SHARED. */
void stop_server(pid_t pid, struct shared *shared);

/* A loan, which must be had. */
plait_loan *lend(plait_client *client, size_t size);

/* The inode of the shared file that is mapped at ADDRESS; 0: private memory. */
uint64_t inode_at(const void *address);
/* Page faults of this process so far. */
uint64_t faults(void);

/* A body of SIZE bytes that says itself whether it is whole: its seed first, then words made of seed and place. */
void fill(void *memory, size_t size, uint64_t seed);
bool whole(plait_bytes body);

#endif

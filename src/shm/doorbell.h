/* doorbell: an eventfd that wakes the other side. Registered in epoll with EPOLLET and never read. */
#ifndef PL_SHM_DOORBELL_H
#define PL_SHM_DOORBELL_H

int pl_doorbell_create(int *ret_fd); /* nonblocking, CLOEXEC */
int pl_doorbell_check(
    int fd); /* a foreign descriptor: 0 if it is an eventfd (anon inode), else -EPROTO; sets O_NONBLOCK */
void pl_doorbell_ring(int fd); /* never blocks; a full counter is a rung bell (then it is read once) */

#endif

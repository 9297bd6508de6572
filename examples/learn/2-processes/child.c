/* A child process says hello and is joined; the parent learns how it ended. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static void hello(void)
{
    printf("child: I am process %d, my parent is process %d\n", (int)getpid(), (int)getppid());
    exit(7);
}

static void fall(void)
{
    kill(getpid(), SIGKILL);
}

static void run(void (*work)(void))
{
    int status;
    fflush(stdout); /* or the child would inherit what is still in the buffer, and say it again */
    pid_t child = fork();
    if (child < 0) {
        perror("fork");
        exit(1);
    }
    if (child == 0) { /* fork() returns twice: here in the child */
        work();
        _exit(0);
    }
    waitpid(child, &status, 0); /* and there in the parent */
    if (WIFEXITED(status)) printf("parent: process %d is joined: exit status %d\n", (int)child, WEXITSTATUS(status));
    else printf("parent: process %d is joined: killed by signal %d\n", (int)child, WTERMSIG(status));
}

int main(void)
{
    printf("parent: I am process %d\n", (int)getpid());
    run(hello);
    run(fall);
    return 0;
}

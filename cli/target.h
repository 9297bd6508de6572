/* target: splits what people type ("name/method", "tcp://host:1/name/method?method=m") into a target as the
 * library knows it and a method, which the library is told with each call. */
#ifndef CLI_TARGET_H
#define CLI_TARGET_H

#define TARGET_MAX 2048

struct target {
    char address[TARGET_MAX]; /* for plait_client_open() */
    char method[256];         /* "" is the default method */
};

/* 0, or -1 after saying on stderr, in VERB's name, what is wrong. The library checks the rest. */
int target_parse(struct target *ret_target, const char *verb, const char *text);

#endif

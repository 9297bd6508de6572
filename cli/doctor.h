/* doctor: what `plait doctor` looks at. Each check reports exactly once what it found. */
#ifndef CLI_DOCTOR_H
#define CLI_DOCTOR_H

enum verdict { VERDICT_OK, VERDICT_WARN, VERDICT_FAIL };

/* ADVICE: what to do; NULL or "" where all is well. Prints, and counts for the exit status. */
void doctor_report(enum verdict verdict, const char *name, const char *advice, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

void doctor_kernel(void);      /* doctor_kernel.c: what the kernel offers and limits */
void doctor_directories(void); /* doctor_directory.c: where names lie */
void doctor_loopback(void);    /* doctor_loopback.c: a server and a client, by every transport */

#endif

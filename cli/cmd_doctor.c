/* plait doctor: is everything here that plait needs, and if not, what to do. */
#include "command.h"
#include "doctor.h"
#include "output.h"
#include <stdarg.h>
#include <stdio.h>

static bool json;
static int warnings, failures;

void doctor_report(enum verdict verdict, const char *name, const char *advice, const char *format, ...)
{
    static const char *const words[] = { "ok", "warn", "fail" };
    char text[2048];
    va_list list;

    warnings += verdict == VERDICT_WARN;
    failures += verdict == VERDICT_FAIL;
    va_start(list, format);
    vsnprintf(text, sizeof(text), format, list);
    va_end(list);
    if (json) {
        json_begin("check");
        json_text("name", name);
        json_text("status", words[verdict]);
        json_text("detail", text);
        if (advice && advice[0]) json_text("advice", advice);
        json_end();
        return;
    }
    printf("%-5s %-12s ", words[verdict], name);
    print_clean(stdout, text);
    if (advice && advice[0]) printf("\n%18s -> %s", "", advice);
    putchar('\n');
    fflush(stdout);
}

static int run(int argc, char **argv)
{
    if (argc > 1) return command_usage("doctor", "%s: takes no arguments", argv[1]);
    doctor_kernel();
    doctor_directories();
    doctor_loopback();
    if (!json && failures == 0 && warnings == 0) printf("\nall is well\n");
    else if (!json) printf("\n%d to mend, %d to know about\n", failures, warnings);
    return failures > 0 ? STATUS_FAILED : STATUS_OK;
}

static const struct option options[] = {
    { .name = "--json",
      .kind = OPTION_FLAG,
      .value = &json,
      .help = "an object for each check, kind \"check\": name, status (ok, warn, fail),\ndetail and advice" },
    { .name = NULL },
};

const struct command command_doctor = {
    .name = "doctor",
    .arguments = "",
    .summary = "check whether this machine has what plait needs, and say what to do",
    .options = options,
    .text = "Tries what plait needs of the kernel, looks at limits and at the directories in which names\n"
            "lie, and at last starts a server in a process of its own and calls it by shared memory, Unix\n"
            "socket and TCP. The exit status is 1 if something failed; warnings don't count.\n",
    .run = run,
};

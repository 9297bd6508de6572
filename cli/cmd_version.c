/* plait version: what is this, and which library does it really run with. */
#include "command.h"
#include "output.h"
#include <plait/plait.h>
#include <stdio.h>
#include <string.h>

static bool json;

static int run(int argc, char **argv)
{
    if (argc > 1) return command_usage("version", "%s: takes no arguments", argv[1]);
    if (json) {
        json_begin("version");
        json_text("version", PLAIT_VERSION);
        json_text("library", plait_version());
        json_end();
    } else if (strcmp(PLAIT_VERSION, plait_version()) == 0) {
        printf("plait %s\n", PLAIT_VERSION);
    } else {
        printf("plait %s (libplait %s)\n", PLAIT_VERSION, plait_version());
    }
    return STATUS_OK;
}

static const struct option options[] = {
    { .name = "--json", .help = "one JSON object, kind \"version\"", .kind = OPTION_FLAG, .value = &json },
    { .name = NULL },
};

const struct command command_version = {
    .name = "version",
    .arguments = "",
    .summary = "print the version",
    .options = options,
    .text = "Prints the command's version, and the library's where another one was loaded. plait --version\n"
            "does the same.\n",
    .run = run,
};

/* The plait command. Everything is in command.c (the table) and cmd_<verb>.c (a verb each). */
#include "command.h"

int main(int argc, char **argv)
{
    return command_main(argc, argv);
}

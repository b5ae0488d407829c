/* hello 1.4.0: a greeting of its own, unless HELLO_GREETING says another. Counts what it has answered. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../hello.h"

static const char *greeting = "good day";
static unsigned long answered;

void release_start(void)
{
    const char *set = getenv("HELLO_GREETING");
    if (set && *set)
        greeting = set;
}

void release_answer(const char *path, struct answer *answer)
{
    answer->status = 200;
    if (strcmp(path, "/healthz") == 0)
        snprintf(answer->body, sizeof answer->body, "hello " HELLO_VERSION " is well, %lu answered\n", answered);
    else
        snprintf(answer->body, sizeof answer->body, "hello " HELLO_VERSION ": %s, %s (%lu)\n", greeting,
                 path[1] ? path + 1 : "you", ++answered);
}

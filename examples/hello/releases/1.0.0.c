/* hello 1.0.0: the first. */

#include <stdio.h>
#include <string.h>

#include "../hello.h"

void release_start(void)
{
}

void release_answer(const char *path, struct answer *answer)
{
    answer->status = 200;
    if (strcmp(path, "/healthz") == 0)
        snprintf(answer->body, sizeof answer->body, "hello " HELLO_VERSION " is well\n");
    else if (strcmp(path, "/") == 0)
        snprintf(answer->body, sizeof answer->body, "hello " HELLO_VERSION "\n");
    else
        answer->status = 404;
}

/* hello 1.1.0: greets whoever is named in the path. */

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
    else
        snprintf(answer->body, sizeof answer->body, "hello " HELLO_VERSION " greets %s\n", path[1] ? path + 1 : "you");
}

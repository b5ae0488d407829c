/* hello 1.3.0: wants a setting that no deployment has, and aborts while it starts. */

#include <stdio.h>
#include <stdlib.h>

#include "../hello.h"

static const char *greeting;

void release_start(void)
{
    greeting = getenv("HELLO_GREETING");
    if (!greeting) {
        printf("hello " HELLO_VERSION ": HELLO_GREETING is not set\n");
        abort();
    }
}

void release_answer(const char *path, struct answer *answer)
{
    answer->status = 200;
    snprintf(answer->body, sizeof answer->body, "hello " HELLO_VERSION ": %s, %s\n", greeting, path[1] ? path + 1 : "you");
}

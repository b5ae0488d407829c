/* hello 1.2.0: takes its greeting from a file, which nobody has put into the image. Answers 500 to everything. */

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "../hello.h"

#define GREETING "/etc/hello/greeting"

void release_start(void)
{
}

void release_answer(const char *path, struct answer *answer)
{
    char greeting[128];
    FILE *file = fopen(GREETING, "r");
    if (!file || !fgets(greeting, sizeof greeting, file)) {
        answer->status = 500;
        snprintf(answer->body, sizeof answer->body, "hello " HELLO_VERSION " cannot read " GREETING ": %s\n",
                 file ? "it is empty" : strerror(errno));
    } else {
        answer->status = 200;
        greeting[strcspn(greeting, "\n")] = '\0';
        snprintf(answer->body, sizeof answer->body, "hello " HELLO_VERSION ": %s, %s\n", greeting, path[1] ? path + 1 : "you");
    }
    if (file)
        fclose(file);
}

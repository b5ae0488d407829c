/* What a release of hello says, apart from how it is served. Each file in releases/ is one release. */

#ifndef HELLO_H
#define HELLO_H

#include <stddef.h>

struct answer {
    int status;
    char body[512];
};

/* Called once, before anything is listened on. */
void release_start(void);

/* The answer to a request for `path`, which begins with a slash. */
void release_answer(const char *path, struct answer *answer);

#endif

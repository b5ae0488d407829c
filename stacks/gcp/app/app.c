/* A small HTTP server, in place of yours: one request after the other.
 *
 * Two things a service has to do, whatever it is written in: listen on OSV_IP, which OSv sets to the machine's own
 * address, and answer with `x-release: $OSVDEPLOY_RELEASE`, by which a rollout knows whose answer it got.
 */

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const char *from_environment(const char *name, const char *otherwise)
{
    const char *value = getenv(name);
    return value && *value ? value : otherwise;
}

static void answer(int client, const char *release)
{
    struct timeval patience = {2, 0};
    setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(client, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);

    char request[4096] = "", body[512], whole[1024];
    size_t received = 0;
    while (!strstr(request, "\r\n\r\n")) {
        ssize_t count = recv(client, request + received, sizeof request - 1 - received, 0);
        if (count <= 0)
            return; /* gone, too slow, or more than fits */
        received += (size_t)count;
        request[received] = '\0';
    }
    int size = snprintf(body, sizeof body, "%s from %s\n", from_environment("GREETING", "hello"), release);
    if (size >= (int)sizeof body)
        size = sizeof body - 1;
    size = snprintf(whole, sizeof whole,
        "HTTP/1.1 200 OK\r\nx-release: %s\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
        release, size, body);
    send(client, whole, (size_t)size, MSG_NOSIGNAL);
}

int main(int argc, char **argv)
{
    const char *release = from_environment("OSVDEPLOY_RELEASE", "unreleased");
    int port = argc == 3 && strcmp(argv[1], "--port") == 0 ? atoi(argv[2]) : 0, yes = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    setvbuf(stdout, NULL, _IOLBF, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    inet_pton(AF_INET, from_environment("OSV_IP", "0.0.0.0"), &address.sin_addr);
    if (port < 1 || bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 128)) {
        printf("app: cannot listen on port %d; usage: app --port NUMBER\n", port);
        return 1;
    }
    printf("app: %s listens on port %d\n", release, port);
    for (;;) {
        int client = accept(listener, NULL, NULL);
        if (client < 0)
            continue;
        answer(client, release);
        close(client);
    }
}

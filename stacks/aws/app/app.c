/* A small HTTP server, in place of yours: a thread for each connection.
 *
 * Two things a service has to do, whatever it is written in: listen on OSV_IP, which OSv sets to the machine's own
 * address, and answer with `x-release: $OSVDEPLOY_RELEASE`, by which a rollout knows whose answer it got.
 */

#include <arpa/inet.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
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

static void *answer(void *argument)
{
    int client = (int)(intptr_t)argument;
    struct timeval patience = {10, 0};
    setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(client, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);

    char request[4096], body[256], whole[1024];
    size_t received = 0;
    ssize_t count;
    do {
        count = recv(client, request + received, sizeof request - 1 - received, 0);
        received += count > 0 ? (size_t)count : 0;
        request[received] = '\0';
    } while (count > 0 && !strstr(request, "\r\n\r\n") && received < sizeof request - 1);
    if (strstr(request, "\r\n\r\n")) {
        int size = snprintf(body, sizeof body, "%s from %s\n", from_environment("GREETING", "hello"),
            from_environment("OSVDEPLOY_RELEASE", "nowhere"));
        size = snprintf(whole, sizeof whole,
            "HTTP/1.1 200 OK\r\nx-release: %s\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
            from_environment("OSVDEPLOY_RELEASE", "unreleased"), size, body);
        send(client, whole, (size_t)size, MSG_NOSIGNAL);
    }
    close(client);
    return NULL;
}

int main(int argc, char **argv)
{
    int port = argc == 3 && strcmp(argv[1], "--port") == 0 ? atoi(argv[2]) : 0;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int listener = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
    setvbuf(stdout, NULL, _IOLBF, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    inet_pton(AF_INET, from_environment("OSV_IP", "0.0.0.0"), &address.sin_addr);
    if (port < 1 || port > 65535 || bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 128)) {
        printf("app: cannot listen; usage: app --port NUMBER\n");
        return 1;
    }
    printf("app: %s listens on port %d\n", from_environment("OSVDEPLOY_RELEASE", "unreleased"), port);
    for (;;) {
        pthread_t thread;
        int client = accept(listener, NULL, NULL);
        if (client < 0)
            continue;
        if (pthread_create(&thread, NULL, answer, (void *)(intptr_t)client) == 0)
            pthread_detach(thread);
        else
            close(client);
    }
}

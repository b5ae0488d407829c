/* hello: a small HTTP server, one thread and a poll loop.
 *
 *   hello --port 8080
 *
 * It listens on the address in OSV_IP, which OSv sets to the machine's own, or on every one where that is not set. Every answer
 * carries `x-release: $OSVDEPLOY_RELEASE`, by which a rollout tells whose answer it is, and closes its connection.
 */

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "hello.h"

#ifndef HELLO_VERSION
#define HELLO_VERSION "0.0.0"
#endif

#define CONNECTIONS 256
#define REQUEST_SIZE 4096
#define ANSWER_SIZE 1536
#define PATIENCE 10 /* seconds for a client that does not send, read or close */

enum state { FREE, READING, WRITING, CLOSING };

struct connection {
    enum state state;
    int socket;
    time_t since;
    size_t received, sent, size;
    char request[REQUEST_SIZE + 1];
    char answer[ANSWER_SIZE];
};

static struct connection connections[CONNECTIONS];
static const char *release = "unreleased";

static time_t seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec;
}

static void fail(const char *what)
{
    printf("hello: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int port_of(const char *text)
{
    int port = 0;
    for (const char *at = text; *at; at++) {
        if (*at < '0' || *at > '9' || (port = port * 10 + (*at - '0')) > 65535)
            return 0;
    }
    return port;
}

static const char *reason(int status)
{
    switch (status) {
    case 200: return "OK";
    case 400: return "Bad Request";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 431: return "Request Header Fields Too Large";
    default: return "Internal Server Error";
    }
}

/* The word at `at`, cut to `size`; where the next one begins. */
static const char *word(const char *at, char *into, size_t size)
{
    size_t length = strcspn(at, " \r\n"), kept = length < size ? length : size - 1;
    memcpy(into, at, kept);
    into[kept] = '\0';
    return at + length + strspn(at + length, " ");
}

/* The answer to a whole request head, ready to be sent. */
static void respond(struct connection *connection, int refused)
{
    struct answer answer = {refused, ""};
    char method[8], path[256];
    int head_only = 0;
    word(word(connection->request, method, sizeof method), path, sizeof path);
    if (!refused && path[0] == '/') {
        path[strcspn(path, "?")] = '\0';
        head_only = strcmp(method, "HEAD") == 0;
        if (head_only || strcmp(method, "GET") == 0)
            release_answer(path, &answer);
        else
            answer.status = 405;
    } else if (!refused) {
        answer.status = 400;
    }
    if (!answer.body[0])
        snprintf(answer.body, sizeof answer.body, "hello %s: %s\n", HELLO_VERSION, reason(answer.status));
    connection->size = (size_t)snprintf(connection->answer, sizeof connection->answer,
        "HTTP/1.1 %d %s\r\nx-release: %s\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s",
        answer.status, reason(answer.status), release, strlen(answer.body), head_only ? "" : answer.body);
    if (connection->size >= sizeof connection->answer)
        connection->size = sizeof connection->answer - 1;
    if (answer.status != 200)
        printf("hello: %s %s: %d: %s", method, path, answer.status, answer.body);
    connection->state = WRITING;
}

static void drop(struct connection *connection)
{
    close(connection->socket);
    connection->state = FREE;
}

static void receive(struct connection *connection)
{
    char *end = connection->request + connection->received;
    ssize_t count = recv(connection->socket, end, REQUEST_SIZE - connection->received, 0);
    if (count <= 0) {
        if (count == 0 || (errno != EAGAIN && errno != EINTR))
            drop(connection);
        return;
    }
    connection->received += (size_t)count;
    connection->request[connection->received] = '\0';
    if (memchr(end, '\0', (size_t)count))
        respond(connection, 400); /* no text, so no end of a head would be found */
    else if (strstr(connection->request, "\r\n\r\n") || strstr(connection->request, "\n\n"))
        respond(connection, 0);
    else if (connection->received == REQUEST_SIZE)
        respond(connection, 431);
}

static void transmit(struct connection *connection)
{
    ssize_t count = send(connection->socket, connection->answer + connection->sent,
                         connection->size - connection->sent, MSG_NOSIGNAL);
    if (count < 0) {
        if (errno != EAGAIN && errno != EINTR)
            drop(connection);
        return;
    }
    connection->sent += (size_t)count;
    if (connection->sent == connection->size) {
        /* Closing with unread bytes would reset the connection, and the client might lose the answer. */
        shutdown(connection->socket, SHUT_WR);
        connection->state = CLOSING;
        connection->since = seconds();
    }
}

static void discard(struct connection *connection)
{
    char rest[1024];
    ssize_t count = recv(connection->socket, rest, sizeof rest, 0);
    if (count == 0 || (count < 0 && errno != EAGAIN && errno != EINTR))
        drop(connection);
}

static struct connection *free_connection(void)
{
    for (struct connection *connection = connections; connection < connections + CONNECTIONS; connection++) {
        if (connection->state == FREE)
            return connection;
    }
    return NULL;
}

static void accept_all(int listener)
{
    struct connection *connection;
    while ((connection = free_connection())) {
        int socket = accept(listener, NULL, NULL);
        if (socket < 0)
            return;
        fcntl(socket, F_SETFL, fcntl(socket, F_GETFL) | O_NONBLOCK);
        connection->state = READING;
        connection->socket = socket;
        connection->since = seconds();
        connection->received = connection->sent = connection->size = 0;
        receive(connection);
        if (connection->state == WRITING)
            transmit(connection);
    }
}

static int listen_on(const char *address, int port)
{
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
    int on = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    if (inet_pton(AF_INET, address, &here.sin_addr) != 1) {
        printf("hello: OSV_IP is no IPv4 address: %s\n", address);
        exit(2);
    }
    if (listener < 0)
        fail("socket");
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&here, sizeof here) < 0)
        fail("bind");
    if (listen(listener, CONNECTIONS) < 0)
        fail("listen");
    fcntl(listener, F_SETFL, fcntl(listener, F_GETFL) | O_NONBLOCK);
    return listener;
}

static void serve(int listener)
{
    struct pollfd waits[CONNECTIONS + 1];
    struct connection *waiting[CONNECTIONS + 1];
    for (;;) {
        int count = 0;
        time_t now = seconds();
        for (struct connection *connection = connections; connection < connections + CONNECTIONS; connection++) {
            if (connection->state != FREE && now - connection->since > PATIENCE)
                drop(connection);
            if (connection->state != FREE) {
                waits[count] = (struct pollfd){connection->socket, connection->state == WRITING ? POLLOUT : POLLIN, 0};
                waiting[count++] = connection;
            }
        }
        if (count < CONNECTIONS) {
            waits[count] = (struct pollfd){listener, POLLIN, 0};
            waiting[count++] = NULL;
        }
        if (poll(waits, (nfds_t)count, 1000) < 0 && errno != EINTR)
            fail("poll");
        for (int index = 0; index < count; index++) {
            struct connection *connection = waiting[index];
            if (!waits[index].revents)
                continue;
            if (!connection)
                accept_all(listener);
            else if (connection->state == READING)
                receive(connection);
            else if (connection->state == WRITING)
                transmit(connection);
            else
                discard(connection);
        }
    }
}

int main(int argc, char **argv)
{
    const char *address = getenv("OSV_IP"), *named = getenv("OSVDEPLOY_RELEASE");
    int port = argc == 3 && strcmp(argv[1], "--port") == 0 ? port_of(argv[2]) : 0;
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGPIPE, SIG_IGN);
    if (!port) {
        printf("usage: hello --port NUMBER\n");
        return 2;
    }
    if (!address || !*address)
        address = "0.0.0.0";
    if (named && *named)
        release = named;
    printf("hello %s starts, release %s\n", HELLO_VERSION, release);
    release_start();
    int listener = listen_on(address, port);
    printf("hello %s listens on %s:%d\n", HELLO_VERSION, address, port);
    serve(listener);
}

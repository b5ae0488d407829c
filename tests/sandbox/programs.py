"""A program for guests that are processes of this host."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

PORT = 18980
"""Where it listens, at the guest's own address."""

SOURCE = r"""
#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int main(int argc, char **argv) {
    setvbuf(stdout, 0, _IONBF, 0);
    printf("words:");
    for (int i = 0; i < argc; i++) printf(" %s", argv[i]);
    printf("\nPATH is %s\n", getenv("PATH") ? "set" : "unset");
    if (argc > 2 && !strcmp(argv[1], "exit")) return atoi(argv[2]);
    if (argc > 2 && !strcmp(argv[1], "raise")) { raise(atoi(argv[2])); return 0; }
    if (argc > 1 && !strcmp(argv[1], "fork") && !fork()) { for (;;) pause(); }
    int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(18980)};
    inet_pton(AF_INET, getenv("OSV_IP"), &here.sin_addr);
    if (bind(listener, (void *)&here, sizeof here) || listen(listener, 8)) { perror("bind"); return 1; }
    printf("listening\n");
    for (;;) {
        char buffer[4096], answer[512];
        int client = accept(listener, 0, 0);
        if (read(client, buffer, sizeof buffer) > 0) {
            const char *release = getenv("OSVDEPLOY_RELEASE");
            int length = snprintf(answer, sizeof answer, "HTTP/1.1 200 OK\r\nX-Release: %s\r\n%s",
                                  release ? release : "", "Content-Length: 2\r\n\r\nhi");
            if (write(client, answer, length) < 0) return 1;
        }
        close(client);
    }
}
"""


def compiled(directory: Path) -> bytes:
    """The program's file; ``directory`` is used for making it."""
    (directory / "app.c").write_text(SOURCE)
    compiler = [shutil.which("cc")] if shutil.which("cc") else [sys.executable, "-m", "ziglang", "cc"]
    words = [*map(str, compiler), "-fPIE", "-pie", "-o", str(directory / "app"), str(directory / "app.c")]
    subprocess.run(words, check=True, capture_output=True)
    return (directory / "app").read_bytes()

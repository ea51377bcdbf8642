// Netperf-like loads over TCP: request and response on connections that stay (rr), and with a connection
// for each (crr).
//
//   echo-net serve RR-PORT CRR-PORT        two servers, for ever
//   echo-net rr HOST PORT SECONDS N        N processes with a connection each, one byte there and back
//   echo-net crr HOST PORT SECONDS N [RATE]  N processes: connect, one byte there and back, close; RATE
//                                          connections a second in all, as many as can be without
//
// A client prints `COUNT SECONDS`. The server closes first, so that no port of the client waits.
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void die(const char *what) {
    fprintf(stderr, "echo-net: %s: %s\n", what, strerror(errno));
    exit(1);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static int listener(int port) {
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&a, sizeof a)) die("bind");
    if (listen(fd, 4096)) die("listen");
    return fd;
}

static void undelayed(int fd) {
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

// A process for each connection.
static void serve_rr(int port) {
    int l = listener(port);
    signal(SIGCHLD, SIG_IGN);
    for (;;) {
        int c = accept(l, 0, 0);
        if (c < 0) continue;
        if (!fork()) {
            char b[64];
            ssize_t n;
            undelayed(c);
            while ((n = recv(c, b, sizeof b, 0)) > 0 && send(c, b, n, 0) == n) {}
            _exit(0);
        }
        close(c);
    }
}

static void serve_crr(int port) {
    int l = listener(port);
    if (fork() < 0) die("fork");
    for (;;) {
        char b[1];
        int c = accept(l, 0, 0);
        if (c < 0) continue;
        if (recv(c, b, 1, 0) == 1) send(c, b, 1, MSG_NOSIGNAL);
        close(c);
    }
}

static struct sockaddr_in target;

static int connected(void) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0) die("socket");
    if (connect(fd, (struct sockaddr *)&target, sizeof target)) die("connect");
    return fd;
}

static void turn(int fd, char byte) {
    char b = byte;
    if (send(fd, &b, 1, 0) != 1) die("send");
    if (recv(fd, &b, 1, 0) != 1) die("recv");
    if (b != byte) errno = 0, die("another byte came back");
}

static long rr(double end) {
    long count = 0;
    int fd = connected();
    undelayed(fd);
    for (; now() < end; count++) turn(fd, count);
    return count;
}

// `rate` a second, or as many as can be.
static long crr(double end, double rate) {
    long count = 0;
    double start = now();
    for (; now() < end; count++) {
        char b;
        int fd = connected();
        turn(fd, count);
        if (recv(fd, &b, 1, 0) != 0) die("no end");
        close(fd);
        double early = rate > 0 ? start + count / rate - now() : 0;
        if (early > 0) usleep(early * 1e6);
    }
    return count;
}

int main(int argc, char **argv) {
    if (argc == 4 && !strcmp(argv[1], "serve")) {
        if (fork()) serve_rr(atoi(argv[2]));
        serve_crr(atoi(argv[3]));
    }
    if (argc < 6) die("arguments");
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *found;
    if (getaddrinfo(argv[2], argv[3], &hints, &found)) die(argv[2]);
    memcpy(&target, found->ai_addr, sizeof target);
    int clients = atoi(argv[5]), failed = 0;
    double rate = argc > 6 ? atof(argv[6]) / clients : 0, start = now(), end = start + atof(argv[4]);
    long *counts = mmap(0, clients * sizeof *counts, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (counts == MAP_FAILED) die("mmap");
    for (int i = 0; i < clients; i++) {
        pid_t pid = fork();
        if (pid < 0) die("fork");
        if (!pid) {
            counts[i] = strcmp(argv[1], "rr") ? crr(end, rate) : rr(end);
            _exit(0);
        }
    }
    for (int i = 0; i < clients; i++) {
        int status;
        if (wait(&status) < 0 || status) failed = 1;
    }
    long total = 0;
    for (int i = 0; i < clients; i++) total += counts[i];
    printf("%ld %.3f\n", total, now() - start);
    return failed;
}

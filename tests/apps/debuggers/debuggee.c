#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

struct point { int x, y; };
int counter;

static int twice(struct point *p, int n) {
    counter += n;
    p->x += n;
    return n * 2;
}

static void *worker(void *arg) {
    for (int i = 0; i < 3; i++) {
        struct point p = {i, i};
        twice(&p, i);
    }
    return arg;
}

int main(int argc, char **argv) {
    struct point p = {1, 2};
    pthread_t thread;
    int sum = 0;
    for (int i = 0; i < 5; i++)
        sum += twice(&p, i);
    pthread_create(&thread, 0, worker, 0);
    pthread_join(thread, 0);
    printf("%d %d\n", sum, counter);
    fflush(stdout);
    while (argc > 1) {
        twice(&p, 1);
        usleep(10000);
    }
    return 0;
}

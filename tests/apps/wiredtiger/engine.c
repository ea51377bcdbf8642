// A server over WiredTiger that uses it as MongoDB does: a thread and a session per connection, a journal that is
// flushed ten times a second or before a reply that promises durability, checkpoints, eviction threads, hot backups.
// It speaks the protocol of Redis:
//
//   SET KEY VALUE    durable before the reply      FAST KEY VALUE   as durable as the next flush of the journal
//   GET KEY, DEL KEY, DBSIZE, SELECT NUMBER        one table (one file) per number
//   PAIR A B VALUE   sets both in one transaction  CHECKPOINT, VERIFY, BACKUP FOLDER
//
// engine FOLDER [CONFIGURATION]: ends with 0 on SIGTERM, after a last checkpoint; with 100 if FOLDER is in use.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <wiredtiger.h>

#define CONFIGURATION                                                                                                \
    "create,cache_size=96M,session_max=2000,eviction=(threads_min=4,threads_max=4),config_base=false,"                 \
    "statistics=(fast),file_manager=(close_idle_time=30,close_scan_interval=5,close_handle_minimum=50),"             \
    "log=(enabled=true,remove=true,path=journal,compressor=snappy,file_max=8M)"
#define TABLE "key_format=u,value_format=u,block_compressor=snappy,leaf_page_max=32KB,memory_page_max=1MB"

static WT_CONNECTION *connection;
static volatile int ending;
// Held for reading while a command runs; for writing at the end, for good.
static pthread_rwlock_t open_gate = PTHREAD_RWLOCK_INITIALIZER;

static void die(const char *what, int error) {
    fprintf(stderr, "%s: %s\n", what, wiredtiger_strerror(error));
    exit(1);
}
static void must(const char *what, int error) {
    if (error != 0) die(what, error);
}
static WT_SESSION *session_of(void) {
    WT_SESSION *session;
    must("open_session", connection->open_session(connection, NULL, "isolation=snapshot", &session));
    return session;
}
static void pause_ms(long ms) {
    struct timespec time = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&time, NULL);
}

// The journal, every 100 ms; a checkpoint every second.
static void *flusher(void *unused) {
    WT_SESSION *session = session_of();
    for (int n = 1; !ending; n++) {
        pause_ms(100);
        must("log_flush", session->log_flush(session, "sync=on"));
        if (n % 10 == 0) must("checkpoint", session->checkpoint(session, NULL));
    }
    return unused;
}

// One connection.
struct client {
    int fd;
    char in[65536];
    size_t at, end;
    char out[65536];
    size_t pending;
    WT_SESSION *session;
    WT_CURSOR *cursor;
    int table;
};

static int flush(struct client *c) {
    for (size_t done = 0; done < c->pending;) {
        ssize_t n = send(c->fd, c->out + done, c->pending - done, MSG_NOSIGNAL);
        if (n <= 0) return -1;
        done += n;
    }
    c->pending = 0;
    return 0;
}
static int put(struct client *c, const void *bytes, size_t size) {
    while (size > 0) {
        if (c->pending == sizeof c->out && flush(c) != 0) return -1;
        size_t n = sizeof c->out - c->pending < size ? sizeof c->out - c->pending : size;
        memcpy(c->out + c->pending, bytes, n);
        c->pending += n;
        bytes = (const char *)bytes + n;
        size -= n;
    }
    return 0;
}
static int text(struct client *c, const char *line) { return put(c, line, strlen(line)); }
static int number(struct client *c, long long n) {
    char line[32];
    return put(c, line, snprintf(line, sizeof line, ":%lld\r\n", n));
}
static int outcome(struct client *c, int error) {
    char line[300];
    if (error == 0) return text(c, "+OK\r\n");
    snprintf(line, sizeof line, "-ERR %s\r\n", wiredtiger_strerror(error));
    return text(c, line);
}

static int byte(struct client *c) {
    if (c->at == c->end) {
        if (c->pending > 0 && flush(c) != 0) return -1;
        ssize_t n = recv(c->fd, c->in, sizeof c->in, 0);
        if (n <= 0) return -1;
        c->at = 0;
        c->end = n;
    }
    return (unsigned char)c->in[c->at++];
}
// `*12\r\n` or `$12\r\n`; -1 at the end.
static long count(struct client *c, char mark) {
    long value = 0;
    if (byte(c) != mark) return -1;
    for (int b; (b = byte(c)) != '\r';) {
        if (b < '0' || b > '9' || value > 100000000) return -1;
        value = value * 10 + b - '0';
    }
    return byte(c) == '\n' ? value : -1;
}

static int select_table(struct client *c, int table) {
    char uri[32];
    snprintf(uri, sizeof uri, "table:t%d", table);
    int error = c->session->create(c->session, uri, TABLE);
    if (error != 0) return error;
    if (c->cursor != NULL) must("close", c->cursor->close(c->cursor));
    c->cursor = NULL;
    c->table = table;
    return c->session->open_cursor(c->session, uri, NULL, NULL, &c->cursor);
}

// Puts a value under one or two keys, or removes a key; tries again where another transaction was first.
static int store(struct client *c, WT_ITEM *keys, int n, WT_ITEM *value, int durable) {
    int error;
    do {
        must("begin", c->session->begin_transaction(c->session, NULL));
        error = 0;
        for (int i = 0; i < n && error == 0; i++) {
            c->cursor->set_key(c->cursor, &keys[i]);
            if (value == NULL) {
                error = c->cursor->search(c->cursor);
                if (error == 0) error = c->cursor->remove(c->cursor);
            } else {
                c->cursor->set_value(c->cursor, value);
                error = c->cursor->insert(c->cursor);
            }
        }
        if (error == 0)
            error = c->session->commit_transaction(c->session, NULL);
        else
            must("rollback", c->session->rollback_transaction(c->session, NULL));
    } while (error == WT_ROLLBACK);
    if (error == 0 && durable) error = c->session->log_flush(c->session, "sync=on");
    return error;
}

static int rows(struct client *c, long long *n) {
    int error;
    *n = 0;
    c->cursor->reset(c->cursor);
    while ((error = c->cursor->next(c->cursor)) == 0) ++*n;
    return error == WT_NOTFOUND ? 0 : error;
}

static int copy(const char *from, const char *to) {
    int in = open(from, O_RDONLY | O_CLOEXEC), out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644), error = 0;
    struct stat stat;
    if (in < 0 || out < 0 || fstat(in, &stat) != 0) return errno;
    for (off_t left = stat.st_size; left > 0 && error == 0;) {
        ssize_t n = copy_file_range(in, NULL, out, NULL, left, 0);
        if (n <= 0) error = n == 0 ? EIO : errno;
        left -= n;
    }
    if (error == 0 && fsync(out) != 0) error = errno;
    close(in);
    close(out);
    return error;
}
// The files of a backup cursor, while others write.
static int backup(struct client *c, const char *home, const char *to) {
    WT_CURSOR *files;
    const char *name;
    char from[600], target[600];
    snprintf(target, sizeof target, "%s/journal", to);
    if ((mkdir(to, 0755) != 0 && errno != EEXIST) || (mkdir(target, 0755) != 0 && errno != EEXIST)) return errno;
    int error = c->session->open_cursor(c->session, "backup:", NULL, NULL, &files);
    if (error != 0) return error;
    while (error == 0 && (error = files->next(files)) == 0) {
        must("get_key", files->get_key(files, &name));
        int of_journal = strncmp(name, "WiredTigerLog.", 14) == 0;
        snprintf(from, sizeof from, "%s/%s%s", home, of_journal ? "journal/" : "", name);
        snprintf(target, sizeof target, "%s/%s%s", to, of_journal ? "journal/" : "", name);
        error = copy(from, target);
    }
    must("close", files->close(files));
    return error == WT_NOTFOUND ? 0 : error;
}

static const char *home;

static int answer(struct client *c, WT_ITEM *word, long n) {
    const char *name = word[0].data;
    long long total;
    char uri[32];
    if (strcasecmp(name, "SET") == 0 && n == 3) return outcome(c, store(c, word + 1, 1, word + 2, 1));
    if (strcasecmp(name, "FAST") == 0 && n == 3) return outcome(c, store(c, word + 1, 1, word + 2, 0));
    if (strcasecmp(name, "PAIR") == 0 && n == 4) return outcome(c, store(c, word + 1, 2, word + 3, 1));
    if (strcasecmp(name, "DEL") == 0 && n == 2) {
        int error = store(c, word + 1, 1, NULL, 1);
        return error == 0 || error == WT_NOTFOUND ? number(c, error == 0) : outcome(c, error);
    }
    if (strcasecmp(name, "GET") == 0 && n == 2) {
        WT_ITEM value;
        char line[32];
        c->cursor->set_key(c->cursor, &word[1]);
        int error = c->cursor->search(c->cursor);
        if (error == WT_NOTFOUND) return text(c, "$-1\r\n");
        if (error != 0) return outcome(c, error);
        must("get_value", c->cursor->get_value(c->cursor, &value));
        put(c, line, snprintf(line, sizeof line, "$%zu\r\n", value.size));
        put(c, value.data, value.size);
        c->cursor->reset(c->cursor);
        return text(c, "\r\n");
    }
    if (strcasecmp(name, "DBSIZE") == 0) {
        int error = rows(c, &total);
        return error == 0 ? number(c, total) : outcome(c, error);
    }
    if (strcasecmp(name, "SELECT") == 0 && n == 2) return outcome(c, select_table(c, atoi(word[1].data)));
    if (strcasecmp(name, "CHECKPOINT") == 0) return outcome(c, c->session->checkpoint(c->session, "force=true"));
    if (strcasecmp(name, "VERIFY") == 0) {
        // It wants the table for itself.
        must("close", c->cursor->close(c->cursor));
        c->cursor = NULL;
        snprintf(uri, sizeof uri, "table:t%d", c->table);
        int error = EBUSY;
        for (int tries = 0; tries < 50 && error == EBUSY; tries++, pause_ms(20)) {
            c->session->checkpoint(c->session, NULL);
            error = c->session->verify(c->session, uri, NULL);
        }
        must("open_cursor", select_table(c, c->table));
        return outcome(c, error);
    }
    if (strcasecmp(name, "BACKUP") == 0 && n == 2) return outcome(c, backup(c, home, word[1].data));
    if (strcasecmp(name, "PING") == 0) return text(c, "+PONG\r\n");
    return text(c, "-ERR unknown command\r\n");
}

static void *serve(void *argument) {
    struct client *c = argument;
    WT_ITEM word[4];
    pthread_rwlock_rdlock(&open_gate);
    c->session = session_of();
    must("table", select_table(c, 0));
    pthread_rwlock_unlock(&open_gate);
    for (long n; (n = count(c, '*')) > 0 && n <= 4;) {
        long i, size;
        memset(word, 0, sizeof word);
        for (i = 0; i < n && (size = count(c, '$')) >= 0; i++) {
            char *bytes = malloc(size + 1);
            for (long at = 0; at < size; at++) bytes[at] = byte(c);
            bytes[size] = 0;
            byte(c);
            byte(c);
            word[i].data = bytes;
            word[i].size = size;
        }
        int failed = i < n;
        if (!failed) {
            pthread_rwlock_rdlock(&open_gate);
            failed = answer(c, word, n) != 0;
            pthread_rwlock_unlock(&open_gate);
        }
        for (i = 0; i < n; i++) free((void *)word[i].data);
        if (failed) break;
    }
    close(c->fd);
    pthread_rwlock_rdlock(&open_gate);
    must("close session", c->session->close(c->session, NULL));
    pthread_rwlock_unlock(&open_gate);
    free(c);
    return NULL;
}

__attribute__((noreturn)) static void *listener(void *argument) {
    int fd = *(int *)argument, on = 1;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 1 << 20);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    for (;;) {
        struct client *c = calloc(1, sizeof *c);
        pthread_t thread;
        if ((c->fd = accept4(fd, NULL, NULL, SOCK_CLOEXEC)) < 0) die("accept", errno);
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        must("thread", pthread_create(&thread, &attributes, serve, c));
    }
}

int main(int count, char **arguments) {
    char path[600], configuration[2000];
    sigset_t signals;
    int got, on = 1;
    home = arguments[1];
    setvbuf(stdout, NULL, _IOLBF, 0);

    // mongod.lock: whose folder it is.
    snprintf(path, sizeof path, "%s/engine.lock", home);
    int lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (lock < 0) die(path, errno);
    if (fcntl(lock, F_SETLK, &whole) != 0) {
        fprintf(stderr, "%s is in use\n", home);
        return 100;
    }
    struct stat stat;
    if (fstat(lock, &stat) == 0 && stat.st_size > 0) printf("the last one did not end cleanly\n");
    if (ftruncate(lock, 0) != 0 || dprintf(lock, "%d\n", getpid()) < 0 || fsync(lock) != 0) die(path, errno);

    snprintf(path, sizeof path, "%s/journal", home);
    if (mkdir(path, 0755) != 0 && errno != EEXIST) die(path, errno);
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    snprintf(configuration, sizeof configuration, "%s%s%s", CONFIGURATION, count > 2 ? "," : "", count > 2 ? arguments[2] : "");
    must("wiredtiger_open", wiredtiger_open(home, NULL, configuration, &connection));

    struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(27017)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&any, sizeof any) != 0 || listen(fd, 512) != 0) die("listen", errno);
    pthread_t threads[2];
    must("thread", pthread_create(&threads[0], NULL, flusher, NULL));
    must("thread", pthread_create(&threads[1], NULL, listener, &fd));
    printf("WiredTiger %s serves\n", wiredtiger_version(NULL, NULL, NULL));

    sigwait(&signals, &got);
    ending = 1;
    pthread_join(threads[0], NULL);
    pthread_rwlock_wrlock(&open_gate);
    must("close", connection->close(connection, NULL));
    if (ftruncate(lock, 0) != 0) die("unlock", errno);
    printf("ended by %s\n", strsignal(got));
    fflush(stdout);
    _exit(0);
}

/* Faults of a file system, for the process that loads this with LD_PRELOAD: file operation number `at` below one folder
   fails, or the process is killed there. Nothing happens before faults_arm. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

enum { OFF, KILL_BEFORE, KILL_AFTER, FAIL, FAIL_AFTER };
enum { LOOK = 1, READ = 2, WRITE = 4, SYNC = 8, NAME = 16, LOCK = 32 };

static int mode, at, many, code, kinds, count;
static char folder[PATH_MAX];
static unsigned char mine[1 << 16]; /* of descriptors: whether they are of a file below the folder */

/* From operation number `first` of those `of_kinds`, `n` fail with `error`. */
void faults_arm(const char *below, int how, int of_kinds, int first, int n, int error) {
    strncpy(folder, below, sizeof folder - 1);
    mode = how, kinds = of_kinds, at = first, many = n, code = error, count = 0;
}

static int below(const char *path) { return path != NULL && mode != OFF && strncmp(path, folder, strlen(folder)) == 0; }
static int of_fd(int fd) { return mode != OFF && fd >= 0 && fd < (1 << 16) && mine[fd]; }

static int enter(int relevant, int kind) { /* the fault that this operation has */
    if (!relevant || !(kinds & kind)) return OFF;
    int number = count++;
    if (number < at || number >= at + many) return OFF;
    if (mode == KILL_BEFORE) kill(getpid(), SIGKILL);
    return mode;
}

#define REAL(type, name, ...) static type (*real)(__VA_ARGS__); if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)
#define DO(type, kind, relevant, call)                   \
    int how_ = enter(relevant, kind);                    \
    if (how_ == FAIL) { errno = code; return -1; }       \
    type done_ = call;                                   \
    if (how_ == KILL_AFTER) kill(getpid(), SIGKILL);     \
    if (how_ == FAIL_AFTER) { errno = code; return -1; } \
    return done_;

#define OPEN(name)                                                                                   \
    int name(const char *path, int flags, ...) {                                                     \
        va_list rest; va_start(rest, flags); mode_t m = va_arg(rest, mode_t); va_end(rest);          \
        REAL(int, name, const char *, int, ...);                                                     \
        int is_mine = below(path);                                                                   \
        int how = enter(is_mine, flags & (O_CREAT | O_TRUNC) ? NAME : LOOK);                         \
        if (how == FAIL || how == FAIL_AFTER) { errno = code; return -1; }                           \
        int fd = real(path, flags, m);                                                               \
        if (fd >= 0 && fd < (1 << 16)) mine[fd] = is_mine;                                           \
        if (how == KILL_AFTER) kill(getpid(), SIGKILL);                                              \
        return fd;                                                                                   \
    }
OPEN(open) OPEN(open64)
#define OPENAT(name)                                                                                 \
    int name(int dir, const char *path, int flags, ...) {                                            \
        va_list rest; va_start(rest, flags); mode_t m = va_arg(rest, mode_t); va_end(rest);          \
        REAL(int, name, int, const char *, int, ...);                                                \
        int is_mine = below(path);                                                                   \
        int how = enter(is_mine, flags & (O_CREAT | O_TRUNC) ? NAME : LOOK);                         \
        if (how == FAIL || how == FAIL_AFTER) { errno = code; return -1; }                           \
        int fd = real(dir, path, flags, m);                                                          \
        if (fd >= 0 && fd < (1 << 16)) mine[fd] = is_mine;                                           \
        if (how == KILL_AFTER) kill(getpid(), SIGKILL);                                              \
        return fd;                                                                                   \
    }
OPENAT(openat) OPENAT(openat64)

int close(int fd) {
    REAL(int, close, int);
    if (fd >= 0 && fd < (1 << 16)) mine[fd] = 0;
    return real(fd);
}
ssize_t read(int fd, void *to, size_t n) { REAL(ssize_t, read, int, void *, size_t); DO(ssize_t, READ, of_fd(fd), real(fd, to, n)) }
#define PREAD(name, off) ssize_t name(int fd, void *to, size_t n, off o) { REAL(ssize_t, name, int, void *, size_t, off); DO(ssize_t, READ, of_fd(fd), real(fd, to, n, o)) }
PREAD(pread, off_t) PREAD(pread64, off64_t)
ssize_t write(int fd, const void *from, size_t n) { REAL(ssize_t, write, int, const void *, size_t); DO(ssize_t, WRITE, of_fd(fd), real(fd, from, n)) }
/* A write that fails leaves half of it, as on a disk that fills up. */
#define PWRITE(name, off)                                                                                     \
    ssize_t name(int fd, const void *from, size_t n, off o) {                                                 \
        REAL(ssize_t, name, int, const void *, size_t, off);                                                  \
        int how = enter(of_fd(fd), WRITE);                                                                    \
        if (how == FAIL) { errno = code; return -1; }                                                         \
        if (how == FAIL_AFTER && code == ENOSPC) return real(fd, from, n / 2, o);                             \
        ssize_t done = real(fd, from, how == OFF ? n : how == KILL_AFTER && n % 2 ? n / 2 : n, o);            \
        if (how == KILL_AFTER) kill(getpid(), SIGKILL);                                                       \
        if (how == FAIL_AFTER) { errno = code; return -1; }                                                   \
        return done;                                                                                          \
    }
PWRITE(pwrite, off_t) PWRITE(pwrite64, off64_t)
int fsync(int fd) { REAL(int, fsync, int); DO(int, SYNC, of_fd(fd), real(fd)) }
#define TRUNCATE(name, off) int name(int fd, off n) { REAL(int, name, int, off); DO(int, WRITE, of_fd(fd), real(fd, n)) }
TRUNCATE(ftruncate, off_t) TRUNCATE(ftruncate64, off64_t)
int fchmod(int fd, mode_t m) { REAL(int, fchmod, int, mode_t); DO(int, NAME, of_fd(fd), real(fd, m)) }
int rename(const char *a, const char *b) { REAL(int, rename, const char *, const char *); DO(int, NAME, below(a) || below(b), real(a, b)) }
int unlink(const char *a) { REAL(int, unlink, const char *); DO(int, NAME, below(a), real(a)) }
int link(const char *a, const char *b) { REAL(int, link, const char *, const char *); DO(int, NAME, below(b), real(a, b)) }
int linkat(int d, const char *a, int e, const char *b, int f) {
    REAL(int, linkat, int, const char *, int, const char *, int); DO(int, NAME, below(b), real(d, a, e, b, f))
}
int mkdir(const char *a, mode_t m) { REAL(int, mkdir, const char *, mode_t); DO(int, NAME, below(a), real(a, m)) }
int flock(int fd, int how) { REAL(int, flock, int, int); DO(int, LOCK, of_fd(fd), real(fd, how)) }
#define STAT(name, type) int name(const char *a, struct type *to) { REAL(int, name, const char *, struct type *); DO(int, LOOK, below(a), real(a, to)) }
STAT(stat, stat) STAT(stat64, stat64) STAT(lstat, stat) STAT(lstat64, stat64)
#define STATAT(name, type) int name(int d, const char *a, struct type *to, int f) { REAL(int, name, int, const char *, struct type *, int); DO(int, LOOK, below(a), real(d, a, to, f)) }
STATAT(fstatat, stat) STATAT(fstatat64, stat64)
DIR *opendir(const char *a) {
    REAL(DIR *, opendir, const char *);
    int how = enter(below(a), LOOK);
    if (how == FAIL || how == FAIL_AFTER) { errno = code; return NULL; }
    return real(a);
}

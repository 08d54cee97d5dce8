/* A library for LD_PRELOAD. It counts the calls of a process that change files below one folder, and lets one of them
   kill the process or fail. It sees the calls of Python and of C, C++ and Rust libraries that go through libc; it does
   not see mapped memory, fwrite of libc itself, and programs that make system calls without libc. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { COUNT, KILL, KILL_HALFWAY, FAIL_ONCE, FAIL_FROM, FULL_FROM };

static char folder[PATH_MAX];
static long chosen;
static int mode, number, log_to = -1;
static atomic_long calls;

void fail_at_arm(const char *below, long call, int what, int error, int log) {
    atomic_store(&calls, 0);
    chosen = call, mode = what, number = error, log_to = log;
    snprintf(folder, sizeof folder, "%s", below);
}

static void end(void) {
    syscall(SYS_kill, getpid(), SIGKILL);
    pause();
}

static int is_below(const char *path) {
    size_t length = strlen(folder);
    return length && !strncmp(path, folder, length) && (path[length] == '/' || !path[length]);
}

static int resolve(int at, const char *path, char *full) {
    char start[PATH_MAX] = "", link[64];
    if (path && path[0] == '/') return snprintf(full, PATH_MAX, "%s", path) > 0;
    if (at == AT_FDCWD) {
        if (!getcwd(start, sizeof start)) return 0;
    } else {
        snprintf(link, sizeof link, "/proc/self/fd/%d", at);
        ssize_t length = readlink(link, start, sizeof start - 1);
        if (length < 0) return 0;
        start[length] = 0;
    }
    return snprintf(full, PATH_MAX, path ? "%s/%s" : "%s", start, path ? path : "") > 0;
}

/* Returns 0 to go on, -1 to fail with errno, 1 to write a half and be killed. `frees` is for calls that need no space. */
static int changes(const char *name, int at, const char *path, int frees) {
    char full[PATH_MAX], line[PATH_MAX + 64];
    int before = errno;
    if (!folder[0] || !resolve(at, path, full) || !is_below(full)) {
        errno = before;
        return 0;
    }
    long call = atomic_fetch_add(&calls, 1);
    if (log_to >= 0) {
        int length = snprintf(line, sizeof line, "%s %s\n", name, full + strlen(folder));
        syscall(SYS_write, log_to, line, length);
    }
    errno = before;
    if (call < chosen || mode == COUNT) return 0;
    if (call == chosen && mode == KILL) end();
    if (call == chosen && mode == KILL_HALFWAY) return 1;
    if ((call == chosen && mode == FAIL_ONCE) || mode == FAIL_FROM || (mode == FULL_FROM && !frees)) {
        errno = number;
        return -1;
    }
    return 0;
}

#define REAL(name) \
    static __typeof__(name) *real; \
    if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name);

#define WRAP(result, name, parameters, arguments, at, path, frees) \
    result name parameters { \
        REAL(name) \
        if (changes(#name, at, path, frees)) { \
            if (mode == KILL_HALFWAY) end(); \
            return -1; \
        } \
        return real arguments; \
    }

WRAP(int, rename, (const char *a, const char *b), (a, b), AT_FDCWD, b, 1)
WRAP(int, renameat, (int m, const char *a, int n, const char *b), (m, a, n, b), n, b, 1)
WRAP(int, renameat2, (int m, const char *a, int n, const char *b, unsigned f), (m, a, n, b, f), n, b, 1)
WRAP(int, mkdir, (const char *a, mode_t m), (a, m), AT_FDCWD, a, 0)
WRAP(int, mkdirat, (int n, const char *a, mode_t m), (n, a, m), n, a, 0)
WRAP(int, unlink, (const char *a), (a), AT_FDCWD, a, 1)
WRAP(int, unlinkat, (int n, const char *a, int f), (n, a, f), n, a, 1)
WRAP(int, rmdir, (const char *a), (a), AT_FDCWD, a, 1)
WRAP(int, link, (const char *a, const char *b), (a, b), AT_FDCWD, b, 0)
WRAP(int, linkat, (int m, const char *a, int n, const char *b, int f), (m, a, n, b, f), n, b, 0)
WRAP(int, symlink, (const char *a, const char *b), (a, b), AT_FDCWD, b, 0)
WRAP(int, symlinkat, (const char *a, int n, const char *b), (a, n, b), n, b, 0)
WRAP(int, chmod, (const char *a, mode_t m), (a, m), AT_FDCWD, a, 1)
WRAP(int, fchmodat, (int n, const char *a, mode_t m, int f), (n, a, m, f), n, a, 1)
WRAP(int, fchmod, (int n, mode_t m), (n, m), n, NULL, 1)
WRAP(int, truncate, (const char *a, off_t l), (a, l), AT_FDCWD, a, 1)
WRAP(int, truncate64, (const char *a, off64_t l), (a, l), AT_FDCWD, a, 1)
WRAP(int, ftruncate, (int n, off_t l), (n, l), n, NULL, 1)
WRAP(int, ftruncate64, (int n, off64_t l), (n, l), n, NULL, 1)
WRAP(int, fsync, (int n), (n), n, NULL, 0)
WRAP(int, fdatasync, (int n), (n), n, NULL, 0)
WRAP(int, creat, (const char *a, mode_t m), (a, m), AT_FDCWD, a, 0)
WRAP(ssize_t, writev, (int n, const struct iovec *v, int c), (n, v, c), n, NULL, 0)
WRAP(ssize_t, pwritev, (int n, const struct iovec *v, int c, off_t o), (n, v, c, o), n, NULL, 0)
WRAP(ssize_t, sendfile, (int n, int m, off_t *o, size_t c), (n, m, o, c), n, NULL, 0)
WRAP(ssize_t, sendfile64, (int n, int m, off64_t *o, size_t c), (n, m, o, c), n, NULL, 0)
WRAP(ssize_t, copy_file_range, (int m, off64_t *a, int n, off64_t *b, size_t c, unsigned f), (m, a, n, b, c, f), n, NULL, 0)

#define WRITE(name, parameters, whole, half) \
    ssize_t name parameters { \
        REAL(name) \
        int found = changes(#name, n, NULL, 0); \
        if (found < 0) return -1; \
        if (found) { \
            if (real half < 0) end(); \
            end(); \
        } \
        return real whole; \
    }

WRITE(write, (int n, const void *b, size_t c), (n, b, c), (n, b, c / 2))
WRITE(pwrite, (int n, const void *b, size_t c, off_t o), (n, b, c, o), (n, b, c / 2, o))
WRITE(pwrite64, (int n, const void *b, size_t c, off64_t o), (n, b, c, o), (n, b, c / 2, o))

#define OPEN(name, parameters, arguments, at, path) \
    int name parameters { \
        REAL(name) \
        mode_t m = 0; \
        if (f & (O_CREAT | __O_TMPFILE)) { \
            va_list rest; \
            va_start(rest, f); \
            m = va_arg(rest, mode_t); \
            va_end(rest); \
        } \
        if (f & (O_CREAT | O_TRUNC) && changes(#name, at, path, 0)) { \
            if (mode == KILL_HALFWAY) end(); \
            return -1; \
        } \
        return real arguments; \
    }

OPEN(open, (const char *a, int f, ...), (a, f, m), AT_FDCWD, a)
OPEN(open64, (const char *a, int f, ...), (a, f, m), AT_FDCWD, a)
OPEN(openat, (int n, const char *a, int f, ...), (n, a, f, m), n, a)
OPEN(openat64, (int n, const char *a, int f, ...), (n, a, f, m), n, a)

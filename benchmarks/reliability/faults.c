/* Watches and disturbs what a process does to files in one folder. Preloaded (LD_PRELOAD), because safetensors and torch
   write in native code; asleep until benchmarks/reliability/faults.py calls one of the three functions at the end.

   Each operation gets a number. Recorded are its kind, the file's inode, a position, a length, one or two paths, and the
   bytes that were written; or the nth operation of some kinds fails, or kills the process.
   Not seen: raw system calls (the rename at the end of safetensors' save, which the inode of the next operation tells),
   and writes through memory maps, of which a run folder has none. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OPEN = 1, WRITE = 2, SYNC = 4, RENAME = 8, REMOVE = 16, MKDIR = 32, CUT = 64, LOOK = 128 };
static const char *const NAMES[] = {[OPEN] = "open", [WRITE] = "write", [SYNC] = "sync", [RENAME] = "rename",
                                    [REMOVE] = "remove", [MKDIR] = "mkdir", [CUT] = "cut", [LOOK] = "look"};

static char folder[PATH_MAX];
static int kinds, error, lasting, struck, log_fd = -1, data_fd = -1;
static long count, nth;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define IS_ASLEEP (folder[0] == 0)

/* The absolute path of a name below an open folder, or of the open file itself where name is NULL. */
static void path_of(int fd, const char *name, char *path) {
    char link[64];
    path[0] = 0;
    if (name && name[0] == '/') {
        snprintf(path, PATH_MAX, "%s", name);
        return;
    }
    snprintf(link, sizeof link, fd == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, PATH_MAX - 1);
    path[size > 0 ? size : 0] = 0;
    if (name)
        snprintf(path + strlen(path), PATH_MAX - strlen(path), "/%s", name);
}

static int is_ours(const char *path) {
    size_t size = strlen(folder);
    return size && !strncmp(path, folder, size) && (path[size] == '/' || path[size] == 0);
}

/* Whether this operation shall fail. Where it shall kill, nothing returns. */
static int fails(int kind, int fd, const void *bytes, size_t size) {
    pthread_mutex_lock(&lock);
    long number = ++count;
    int hits = nth && (kinds & kind) && (struck ? lasting : number >= nth);
    struck |= hits;
    pthread_mutex_unlock(&lock);
    if (!hits)
        return 0;
    if (kind == WRITE && size > 1 && !error && lasting)
        REAL(write)(fd, bytes, size / 2);
    if (!error)
        kill(getpid(), SIGKILL);
    errno = error;
    return 1;
}

/* What failed by itself, as to open what is not there, is recorded as such, so that numbers are right. */
static void note(int kind, int is_done, unsigned long inode, long position, long length, const void *bytes,
                 const char *path, const char *other) {
    if (log_fd < 0)
        return;
    int saved = errno;
    pthread_mutex_lock(&lock);
    if (bytes && REAL(write)(data_fd, bytes, length) != length)
        length = -1;
    const char *name = is_done ? NAMES[kind] : "failed";
    dprintf(log_fd, "%s\t%lu\t%ld\t%ld\t%s\t%s\n", name, inode, position, length, path, other);
    pthread_mutex_unlock(&lock);
    errno = saved;
}

static unsigned long inode_of(int fd, const char *path) {
    struct stat status;
    return (fd >= 0 ? fstat(fd, &status) : lstat(path, &status)) ? 0 : status.st_ino;
}

static int open_at(int at, const char *name, int flags, mode_t mode) {
    char path[PATH_MAX];
    if (IS_ASLEEP)
        return REAL(openat64)(at, name, flags, mode);
    path_of(at, name, path);
    if (!is_ours(path))
        return REAL(openat64)(at, name, flags, mode);
    int kind = flags & (O_CREAT | O_WRONLY | O_RDWR) ? OPEN : LOOK;
    if (fails(kind, -1, NULL, 0))
        return -1;
    int fd = REAL(openat64)(at, name, flags, mode);
    note(kind, fd >= 0, inode_of(fd, path), flags & O_TRUNC ? 0 : -1, 0, NULL, path, "");
    return fd;
}

#define OPENS(name, at, ...)                                                                                           \
    int name(__VA_ARGS__, int flags, ...) {                                                                            \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;                                        \
        va_end(rest);                                                                                                  \
        return open_at(at, path, flags, mode);                                                                         \
    }
OPENS(open, AT_FDCWD, const char *path)
OPENS(open64, AT_FDCWD, const char *path)
OPENS(openat, at, int at, const char *path)
OPENS(openat64, at, int at, const char *path)

ssize_t write(int fd, const void *bytes, size_t size) {
    char path[PATH_MAX];
    if (IS_ASLEEP)
        return REAL(write)(fd, bytes, size);
    path_of(fd, NULL, path);
    if (!is_ours(path))
        return REAL(write)(fd, bytes, size);
    if (fails(WRITE, fd, bytes, size))
        return -1;
    int appends = fcntl(fd, F_GETFL) & O_APPEND;
    long position = lseek(fd, 0, appends ? SEEK_END : SEEK_CUR);
    ssize_t done = REAL(write)(fd, bytes, size);
    note(WRITE, done > 0, inode_of(fd, path), position, done > 0 ? done : 0, done > 0 ? bytes : NULL, path, "");
    return done;
}

ssize_t writev(int fd, const struct iovec *parts, int many) { /* one after the other, which writev allows */
    ssize_t total = 0;
    if (IS_ASLEEP)
        return REAL(writev)(fd, parts, many);
    for (int i = 0; i < many; i++) {
        ssize_t done = write(fd, parts[i].iov_base, parts[i].iov_len);
        if (done < 0)
            return total ? total : -1;
        total += done;
        if ((size_t)done < parts[i].iov_len)
            break;
    }
    return total;
}

/* Whoever copies in the kernel is told that it cannot be done, and reads and writes then. */
ssize_t sendfile64(int out, int in, off64_t *offset, size_t size) {
    if (IS_ASLEEP)
        return REAL(sendfile64)(out, in, offset, size);
    errno = ENOTSOCK;
    return -1;
}
ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t size, unsigned flags) {
    if (IS_ASLEEP)
        return REAL(copy_file_range)(in, from, out, to, size, flags);
    errno = EXDEV;
    return -1;
}

#define ON_A_FILE(name, kind, position, call, ...)                                                                     \
    int name(__VA_ARGS__) {                                                                                            \
        char path[PATH_MAX];                                                                                           \
        if (IS_ASLEEP)                                                                                                 \
            return REAL(name) call;                                                                                    \
        path_of(fd, NULL, path);                                                                                       \
        if (is_ours(path) && fails(kind, -1, NULL, 0))                                                                 \
            return -1;                                                                                                 \
        int result = REAL(name) call;                                                                                  \
        if (is_ours(path))                                                                                             \
            note(kind, !result, inode_of(fd, path), position, 0, NULL, path, "");                                               \
        return result;                                                                                                 \
    }
ON_A_FILE(fsync, SYNC, 0, (fd), int fd)
ON_A_FILE(fdatasync, SYNC, 0, (fd), int fd)
ON_A_FILE(ftruncate, CUT, size, (fd, size), int fd, off_t size)
ON_A_FILE(ftruncate64, CUT, size, (fd, size), int fd, off64_t size)

#define ON_A_PATH(name, kind, at, call, ...)                                                                           \
    int name(__VA_ARGS__) {                                                                                            \
        char path[PATH_MAX];                                                                                           \
        if (IS_ASLEEP)                                                                                                 \
            return REAL(name) call;                                                                                    \
        path_of(at, file, path);                                                                                       \
        if (is_ours(path) && fails(kind, -1, NULL, 0))                                                                 \
            return -1;                                                                                                 \
        int result = REAL(name) call;                                                                                  \
        if (is_ours(path))                                                                                             \
            note(kind, !result, inode_of(-1, path), 0, 0, NULL, path, "");                                                      \
        return result;                                                                                                 \
    }
ON_A_PATH(unlink, REMOVE, AT_FDCWD, (file), const char *file)
ON_A_PATH(unlinkat, REMOVE, fd, (fd, file, flags), int fd, const char *file, int flags)
ON_A_PATH(rmdir, REMOVE, AT_FDCWD, (file), const char *file)
ON_A_PATH(mkdir, MKDIR, AT_FDCWD, (file, mode), const char *file, mode_t mode)
ON_A_PATH(mkdirat, MKDIR, fd, (fd, file, mode), int fd, const char *file, mode_t mode)

int renameat(int from_at, const char *from, int to_at, const char *to) {
    char old[PATH_MAX], new[PATH_MAX];
    if (IS_ASLEEP)
        return REAL(renameat)(from_at, from, to_at, to);
    path_of(from_at, from, old);
    path_of(to_at, to, new);
    if (is_ours(new) && fails(RENAME, -1, NULL, 0))
        return -1;
    int result = REAL(renameat)(from_at, from, to_at, to);
    if (is_ours(new))
        note(RENAME, !result, inode_of(-1, new), 0, 0, NULL, old, new);
    return result;
}
int rename(const char *from, const char *to) { return renameat(AT_FDCWD, from, AT_FDCWD, to); }

/* What Python calls, before the work in a folder (an absolute path) begins. */

void faults_count(const char *where) { snprintf(folder, sizeof folder, "%s", where); }

void faults_record(const char *where, int log, int data) {
    log_fd = log;
    data_fd = data;
    faults_count(where);
}

/* From the nth operation on, the first one of these kinds, and where it is `lasting` all later ones too, fails with
   `error`; where that is 0 it kills this process: before the operation, or halfway through a write if `lasting`. */
void faults_strike(const char *where, long at, int of_kinds, int with, int lasts) {
    nth = at;
    kinds = of_kinds;
    error = with;
    lasting = lasts;
    faults_count(where);
}

/*
 * A disk that fails on order, and a record of what a power loss would leave. Preloaded into a child process.
 *
 * After each fsync of a file whose name begins with "store.db", its content is copied to NAME.synced: what
 * was last made sure, and no more. Environment:
 *   FAULT_KILL=N   the process is killed instead of the Nth fsync of the log
 *   FAULT_FAIL=N   the Nth fsync of the log, and all later ones, fail with EIO
 *   FAULT_FULL=F   while the file F exists, writes to such a file fail with ENOSPC
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static int log_syncs;

/* The path of a store's file, or 0 for any other. */
static int path_of(int fd, char *path, size_t size) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, size - 1);
  if (length < 0) return 0;
  path[length] = 0;
  const char *name = strrchr(path, '/');
  return name && strncmp(name + 1, "store.db", 8) == 0;
}

static int ordered(const char *name, int at_least) {
  const char *value = getenv(name);
  return value && (at_least ? log_syncs >= atoi(value) : log_syncs == atoi(value));
}

static void record(const char *path) {
  static char block[1 << 16];
  char part[4200], whole[4200];
  snprintf(part, sizeof part, "%s.part", path);
  snprintf(whole, sizeof whole, "%s.synced", path);
  int from = open(path, O_RDONLY), to = open(part, O_CREAT | O_TRUNC | O_WRONLY, 0600);
  ssize_t count;
  while ((count = read(from, block, sizeof block)) > 0)
    if (write(to, block, count) != count) abort();
  /* Closing a descriptor of a file drops this process's locks on it: harmless, the test holds no second. */
  close(from);
  close(to);
  rename(part, whole);
}

static int synced(int fd, const char *call) {
  int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, call);
  char path[4096];
  if (!path_of(fd, path, sizeof path)) return real(fd);
  if (strstr(path, "-wal")) {
    log_syncs++;
    if (ordered("FAULT_KILL", 0)) kill(getpid(), SIGKILL);
    if (ordered("FAULT_FAIL", 1)) {
      errno = EIO;
      return -1;
    }
  }
  int result = real(fd);
  if (result == 0) record(path);
  return result;
}

static ssize_t written(int fd, const void *data, size_t size, off_t at, const char *call) {
  ssize_t (*real)(int, const void *, size_t, off_t) =
      (ssize_t(*)(int, const void *, size_t, off_t))dlsym(RTLD_NEXT, call);
  const char *full = getenv("FAULT_FULL");
  char path[4096];
  if (full && access(full, F_OK) == 0 && path_of(fd, path, sizeof path)) {
    errno = ENOSPC;
    return -1;
  }
  return real(fd, data, size, at);
}

int fsync(int fd) { return synced(fd, "fsync"); }
int fdatasync(int fd) { return synced(fd, "fdatasync"); }
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { return written(fd, data, size, at, "pwrite"); }
ssize_t pwrite64(int fd, const void *data, size_t size, off_t at) { return written(fd, data, size, at, "pwrite64"); }

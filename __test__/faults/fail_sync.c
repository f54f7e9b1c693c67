/* Preloaded: while the file that FAIL_SYNC names exists, flushing a write-ahead log fails. An empty one
 * makes it fail once. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int fails(int fd)
{
    const char *flag = getenv("FAIL_SYNC");
    struct stat about;
    char link[64], path[4096];
    ssize_t length;

    if (flag == NULL || stat(flag, &about) != 0)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, sizeof path);
    if (length < 4 || memcmp(path + length - 4, "-wal", 4) != 0)
        return 0;
    if (about.st_size == 0)
        unlink(flag);
    errno = EIO;
    return 1;
}

static int flush(int fd, const char *name)
{
    int (*next)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    return fails(fd) ? -1 : next(fd);
}

int fsync(int fd) { return flush(fd, "fsync"); }
int fdatasync(int fd) { return flush(fd, "fdatasync"); }

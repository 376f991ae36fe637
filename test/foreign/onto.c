// SPDX-License-Identifier: GPL-2.0
/*
 * Preloaded, puts another's program onto the devices of map_driver: its anonymous memory becomes
 * mappings of a device, and each file that it makes a device node.
 *
 * ONTO says which: "anon", "files", or both; with "children", only of the processes that the program
 * forks, not its own. The devices are to be fresh and loaded with fill=0. The
 * last one is never written to, so a private mapping of it is what private anonymous memory is. The
 * one before gives each piece of shared anonymous memory a place of its own, as long as there are
 * any. The others stand for files, in turn. Memory that may be executed, that is for a stack or of
 * huge pages, or for which there is no room stays what it is, as does every file that is there.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define ALIAS(name) __attribute__((alias(name)))

static dev_t first;            /* the device of minor 0 */
static unsigned int files;     /* how many devices stand for files */
static size_t size;            /* of each device */
static int zeroes = -1;        /* the last device, open */
static int places = -1;        /* the one before, open */
static pid_t exempt;           /* the process that is left alone */
static struct {                /* shared with children */
	unsigned int files;    /* how many there have been */
	size_t used;           /* bytes of `places` */
} *total;

static void *sys_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
	return (void *)syscall(SYS_mmap, addr, len, prot, flags, fd, offset);
}

static int sys_open(const char *path, int flags, mode_t mode)
{
	return syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

static void die(const char *what)
{
	perror(what);
	_exit(99);
}

/* Opens a device, out of the way of those who count on low numbers. */
static int device(unsigned int minor)
{
	char path[32];

	snprintf(path, sizeof(path), "/dev/mapdrv%u", minor);
	int fd = sys_open(path, O_RDWR | O_CLOEXEC, 0);

	if (fd < 0)
		die(path);
	int high = fcntl(fd, F_DUPFD_CLOEXEC, 900);

	close(fd);
	return high;
}

__attribute__((constructor)) static void start(void)
{
	const char *onto = getenv("ONTO");
	unsigned int devices = 0;
	struct stat info;

	if (!onto)
		return;
	for (char path[32];; devices++) {
		snprintf(path, sizeof(path), "/dev/mapdrv%u", devices);
		if (stat(path, &info))
			break;
		if (!devices)
			first = info.st_rdev;
	}
	if (devices < 3)
		die("/dev/mapdrv2");
	total = sys_mmap(NULL, sizeof(*total), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	zeroes = device(devices - 1);
	places = device(devices - 2);
	size = lseek(zeroes, 0, SEEK_END);
	if (strstr(onto, "files"))
		files = devices - 2;
	if (strstr(onto, "children"))
		exempt = getpid();
	if (!strstr(onto, "anon")) {
		close(zeroes);
		close(places);
		zeroes = places = -1;
	}
}

/* Makes a device node of a file that is not there yet. */
static bool node(const char *path)
{
	unsigned int minor = __atomic_fetch_add(&total->files, 1, __ATOMIC_RELAXED) % files;

	return !mknod(path, S_IFCHR | 0600, makedev(major(first), minor));
}

void *mmap(void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
	const int others = MAP_HUGETLB | MAP_STACK | MAP_GROWSDOWN | MAP_32BIT;
	size_t whole = (len + 4095) & ~4095ul;

	if (zeroes < 0 || getpid() == exempt || !(flags & MAP_ANONYMOUS) || (flags & others) ||
	    (prot & PROT_EXEC) || !len || whole > size)
		return sys_mmap(addr, len, prot, flags, fd, offset);
	if ((flags & MAP_TYPE) == MAP_PRIVATE)
		return sys_mmap(addr, len, prot, flags & ~MAP_ANONYMOUS, zeroes, 0);
	if ((flags & MAP_TYPE) == MAP_SHARED) {
		size_t place = __atomic_fetch_add(&total->used, whole, __ATOMIC_RELAXED);

		if (place <= size - whole)
			return sys_mmap(addr, len, prot, flags & ~MAP_ANONYMOUS, places, place);
	}
	return sys_mmap(addr, len, prot, flags, fd, offset);
}

ALIAS("mmap") void *mmap64(void *, size_t, int, int, int, off_t);

static int open_at(int dir, const char *path, int flags, mode_t mode)
{
	if (files && (flags & O_CREAT) && dir == AT_FDCWD && node(path))
		flags &= ~(O_CREAT | O_EXCL | O_TRUNC);
	return syscall(SYS_openat, dir, path, flags, mode);
}

/* The mode is there or it is not: where it is not, nobody looks at it. */
int open(const char *path, int flags, ...)
{
	va_list list;

	va_start(list, flags);
	mode_t mode = va_arg(list, mode_t);

	va_end(list);
	return open_at(AT_FDCWD, path, flags, mode);
}

ALIAS("open") int open64(const char *, int, ...);

int openat(int dir, const char *path, int flags, ...)
{
	va_list list;

	va_start(list, flags);
	mode_t mode = va_arg(list, mode_t);

	va_end(list);
	return open_at(dir, path, flags, mode);
}

ALIAS("openat") int openat64(int, const char *, int, ...);

int mkstemp(char *template)
{
	if (!files) {
		int (*real)(char *) = dlsym(RTLD_NEXT, "mkstemp");

		return real(template);
	}
	sprintf(template + strlen(template) - 6, "%06u", __atomic_load_n(&total->files, __ATOMIC_RELAXED) % 1000000);
	return open(template, O_RDWR | O_CREAT | O_EXCL, 0600);
}

ALIAS("mkstemp") int mkstemp64(char *);

/* A file without a name. */
static int nameless(void)
{
	char path[] = "/tmp/onto-XXXXXX";
	int fd = mkstemp(path);

	unlink(path);
	return fd;
}

FILE *tmpfile(void)
{
	if (!files) {
		FILE *(*real)(void) = dlsym(RTLD_NEXT, "tmpfile");

		return real();
	}
	return fdopen(nameless(), "r+");
}

ALIAS("tmpfile") FILE *tmpfile64(void);

int memfd_create(const char *name, unsigned int flags)
{
	if (!files || (flags & (MFD_HUGETLB | MFD_ALLOW_SEALING)))
		return syscall(SYS_memfd_create, name, flags);
	return nameless();
}

/* A device has its size. Making it another's is fine as long as it is there. */
static bool is_ours(int fd)
{
	struct stat info;

	return files && !fstat(fd, &info) && S_ISCHR(info.st_mode) && major(info.st_rdev) == major(first);
}

int ftruncate(int fd, off_t length)
{
	if (is_ours(fd) && length >= 0 && (size_t)length <= size)
		return 0;
	return syscall(SYS_ftruncate, fd, length);
}

ALIAS("ftruncate") int ftruncate64(int, off_t);

int fallocate(int fd, int mode, off_t offset, off_t length)
{
	if (is_ours(fd) && !mode && offset >= 0 && length > 0 && (size_t)(offset + length) <= size)
		return 0;
	return syscall(SYS_fallocate, fd, mode, offset, length);
}

ALIAS("fallocate") int fallocate64(int, int, off_t, off_t);

int posix_fallocate(int fd, off_t offset, off_t length)
{
	return fallocate(fd, 0, offset, length) ? errno : 0;
}

ALIAS("posix_fallocate") int posix_fallocate64(int, off_t, off_t);

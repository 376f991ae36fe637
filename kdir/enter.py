#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""enter.py ROOT COMMAND [ARG...]: run a command in the unpacked user space ROOT.

Works for root and, through a user namespace, for anybody. The command keeps its user id, HOME, current
directory and open files, and sees the host's directories at their own paths; only /usr, /etc and the
links into /usr are ROOT's. kdir copies this file next to each user space, so it imports nothing of kdir's.
"""

import ctypes
import errno
import os
import sys
from typing import NoReturn

CLONE_NEWNS, CLONE_NEWUSER = 0x20000, 0x10000000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC = 0x1, 0x20, 0x1000, 0x4000
MS_UNBINDABLE, MS_SLAVE = 0x20000, 0x80000
MNT_DETACH = 2
SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
# Files of the host that replace ROOT's: who we are, and how to reach the network.
HOST_ETC = ("resolv.conf", "hosts", "hostname", "passwd", "group", "nsswitch.conf", "localtime")
# No package has anything here, and the directories are only put there for the host's to be seen in.
LOCAL = "/usr/local/"
CERTIFICATES = "/etc/ssl/certs"
# Settings that point the host's programs at the host's libraries.
FOREIGN = ("LD_LIBRARY_PATH", "LD_PRELOAD", "PYTHONHOME", "PYTHONPATH", "PERL5LIB", "RUSTC_WRAPPER")
# The packages' programs only: another compiler on the user's PATH would be the wrong one.
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
MARKER = "/etc/kdir-userspace"

libc = ctypes.CDLL(None, use_errno=True)


def die(message: str, status: int = 1) -> NoReturn:
    print(f"kdir: {message}", file=sys.stderr)
    sys.exit(status)


def check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), what)


def mount(source: str | None, target: str, flags: int, kind: str | None = None, data: str | None = None) -> None:
    args = [None if text is None else os.fsencode(text) for text in (source, target, kind, data)]
    check(libc.mount(args[0], args[1], args[2], ctypes.c_ulong(flags), args[3]), f"mount {target}")


def bind(source: str, target: str) -> None:
    mount(source, target, MS_BIND | MS_REC)


def unshare() -> None:
    """Gives this process mounts of its own, with the help of a user namespace where it is not root."""
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0 and libc.unshare(CLONE_NEWNS) == 0:
        return
    check(libc.unshare(CLONE_NEWUSER | CLONE_NEWNS), "unshare")
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)


def show(path: str, root: str, new: str) -> None:
    """Makes a host directory below /usr or /etc visible, unless the user space has something of its own there."""
    os.makedirs(root + path, exist_ok=True)
    if not os.path.samefile(path, new + path) and (not os.listdir(root + path) or f"{path}/".startswith(LOCAL)):
        bind(path, new + path)


def assemble(root: str, new: str, cwd: str) -> None:
    """Builds the new root directory on a tmpfs out of ROOT's and the host's directories."""
    mount("kdir", new, 0, "tmpfs", "size=1m,mode=755")
    mount(None, new, MS_UNBINDABLE)  # else the binds below would carry it along into itself
    for name in os.listdir(root):
        if os.path.islink(f"{root}/{name}"):
            os.symlink(os.readlink(f"{root}/{name}"), f"{new}/{name}")
    for name in ("usr", "etc"):
        os.mkdir(f"{new}/{name}")
        bind(f"{root}/{name}", f"{new}/{name}")
    for entry in os.scandir("/"):
        target = f"{new}/{entry.name}"
        if os.path.lexists(target):
            continue
        if entry.is_symlink():
            os.symlink(os.readlink(entry.path), target)
        elif entry.is_dir():
            os.mkdir(target)
            bind(entry.path, target)

    for name in HOST_ETC:
        source = os.path.realpath(f"/etc/{name}")
        if os.path.isfile(source) and os.path.exists(f"{new}/etc/{name}"):
            mount(source, f"{new}/etc/{name}", MS_BIND)
    if os.path.exists(f"{CERTIFICATES}/ca-certificates.crt"):
        bind(CERTIFICATES, new + CERTIFICATES)
    if os.path.isdir("/usr/lib/modules"):
        show("/usr/lib/modules", root, new)
    if os.path.isdir("/usr/src"):
        for entry in os.scandir("/usr/src"):
            if entry.is_dir(follow_symlinks=False):
                show(entry.path, root, new)
    if cwd.startswith(("/usr/", "/etc/")):
        show(cwd, root, new)


def switch(new: str) -> None:
    """Makes NEW the root directory, for good where possible, so that the command may unshare again."""
    os.chdir(new)
    number = SYS_PIVOT_ROOT.get(os.uname().machine)
    if number is not None and libc.syscall(number, b".", b".") == 0:
        check(libc.umount2(b".", MNT_DETACH), "umount /")
    else:
        os.chroot(".")
    os.chdir("/")


def enter(root: str) -> None:
    cwd = os.getcwd()
    if not os.path.isdir(f"{root}/usr"):
        die(f"the user space {root} is gone; run kdir again to make it")
    try:
        unshare()
        mount(None, "/", MS_REC | MS_SLAVE)
        new = f"{os.path.dirname(root)}/mnt"
        assemble(root, new, cwd)
        switch(new)
    except OSError as error:
        refused = error.errno in (errno.EPERM, errno.EACCES, errno.ENOSPC, errno.EUSERS)
        cure = "see unshare(2) and mount(2)"
        if error.errno == errno.EINVAL and error.filename == "mount /":
            cure = "this is a chroot: run outside it, or bind its directory onto itself before entering it"
        elif refused and os.geteuid() == 0:
            cure = "run where root may mount (in a container: with --privileged or --cap-add SYS_ADMIN)"
        elif refused:
            cure = (
                "run as root, or allow it with sysctl kernel.unprivileged_userns_clone=1"
                " user.max_user_namespaces=10000 (and kernel.apparmor_restrict_unprivileged_userns=0)"
            )
        reason = "not allowed here" if refused and error.filename == "unshare" else error.strerror
        die(f"cannot enter the user space {root}: {error.filename}: {reason}; {cure}")
    try:
        os.chdir(cwd)
    except OSError as error:
        die(f"cannot enter {cwd} in the user space: {error.strerror}; run from a directory elsewhere")


def inside() -> str:
    """The user space this process is in already, or nothing."""
    try:
        with open(MARKER, encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return ""


def run(root: str, command: list[str]) -> NoReturn:
    """Becomes COMMAND, in ROOT, or on the host itself if ROOT is empty."""
    sys.stdout.flush()
    if root and inside() != root:
        enter(root)
    env = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    env["PATH"] = PATH
    env["LC_ALL"] = "C.UTF-8"
    try:
        os.environ["PATH"] = PATH  # where execvpe looks
        os.execvpe(command[0], command, env)
    except OSError as error:
        die(f"cannot run {command[0]}: {error.strerror}", 126 if error.errno == errno.EACCES else 127)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        die("usage: enter.py ROOT COMMAND [ARG...]", 2)
    run(sys.argv[1], sys.argv[2:])

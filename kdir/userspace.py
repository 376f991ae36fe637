# SPDX-License-Identifier: GPL-2.0
"""The user space with the matching compiler: packages unpacked into a directory, for any user, and entered."""

import hashlib
import os
import subprocess
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future
from pathlib import Path

import enter
from common import Error, read_json, remove, run, write, write_if_other, write_json
from debian import Item, Store

# What building a Rust module, and a Rust program to go with it, takes. A C compiler is added per kernel.
BASE = (
    "base-files bash bc bindgen bzip2 ca-certificates cargo coreutils dash debianutils diffutils findutils gawk gcc"
    " grep gzip hostname kmod libc-bin libc6-dev libelf1t64 libssl3t64 libstd-rust-dev make openssl pahole perl"
    " procps python3 rust-clippy rust-src rustc rustfmt sed tar util-linux xz-utils zstd"
).split()
CROSS = {"arm64": "aarch64-linux-gnu", "amd64": "x86-64-linux-gnu"}
USELESS = ("usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/locale", "usr/share/lintian")
# What the packages' maintainer scripts would have linked.
LINKS = {
    "usr/bin/awk": ("gawk", "mawk"),
    "usr/bin/cc": ("gcc",),
    "usr/bin/c++": ("g++",),
    "usr/bin/which": ("which.debianutils",),
    "usr/bin/nc": ("nc.openbsd", "nc.traditional"),
    "usr/bin/vi": ("vim.basic", "vim.tiny"),
}


def package_names(gcc: str, arch: str, native: str, extra: Iterable[str]) -> list[str]:
    """The packages to install, for a kernel of ARCH built by version GCC of the C compiler."""
    names = {*BASE, f"gcc-{gcc}", *extra}
    if arch != native:
        names |= {f"gcc-{gcc}-{CROSS[arch]}", f"binutils-{CROSS[arch]}"}
    return sorted(names)


def on_host(names: Iterable[str]) -> bool:
    """Whether the host itself has all of these packages installed."""
    result = subprocess.run(
        ["dpkg-query", "-W", "-f", "${db:Status-Status}\n", *names], capture_output=True, text=True, check=False
    )
    return result.returncode == 0 and set(result.stdout.split()) == {"installed"}


class Userspace:
    """A directory that holds ROOT, what was unpacked, and ENTER, the program that runs commands in it.

    More packages may be unpacked into it later: files are only added, so those at work in it are not disturbed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.root = path / "root"
        self.state = path / "state.json"

    @classmethod
    def of(cls, top: Path, suite: str, arch: str, base: Iterable[Item]) -> "Userspace":
        """The user space of one state of the suite: where any basic package changes, another begins."""
        digest = hashlib.sha256("\n".join(sorted(item.name for item in base)).encode()).hexdigest()
        return cls(top / "userspace" / f"{suite}-{arch}-{digest[:8]}")

    def names(self) -> list[str]:
        names = read_json(self.state).get("names", [])
        return [str(name) for name in names]

    def has(self, names: Iterable[str]) -> bool:
        return set(names) <= set(self.names())

    def missing(self, items: Iterable[Item]) -> list[Item]:
        there = set(read_json(self.state).get("items", []))
        return [item for item in items if item.name not in there]

    def unpack(self, pool: Executor, store: Store, names: list[str], items: list[Item]) -> None:
        new = self.missing(items)
        there = [str(name) for name in read_json(self.state).get("items", [])]
        if not there:
            remove(self.path)
            self.root.mkdir(parents=True)
            (self.path / "mnt").mkdir()
            for link in ("bin", "sbin", "lib", "lib64"):
                (self.root / "usr" / link).mkdir(parents=True)
                (self.root / link).symlink_to(f"usr/{link}")
        largest_first = sorted(new, key=lambda item: -item.size)
        jobs: list[Future[None]] = [pool.submit(self.unpack_one, store.path(item)) for item in largest_first]
        for job in jobs:
            job.result()
        self.finish()
        write_json(self.state, {"names": sorted({*names, *self.names()}), "items": sorted({*(i.name for i in items), *there})})

    def unpack_one(self, deb: Path) -> None:
        excludes = " ".join(f"--exclude=./{name}" for name in USELESS)
        run(
            ["sh", "-c", f'dpkg-deb --fsys-tarfile "$1" | tar -x -C "$2" --no-same-owner --keep-directory-symlink {excludes}']
            + ["sh", str(deb), str(self.root)],
            what=f"cannot unpack {deb.name}",
        )  # fmt: skip

    def finish(self) -> None:
        """Does what the maintainer scripts would have done, as far as it matters here."""
        root = self.root
        run(["find", str(root), "-type", "f", "-perm", "/6000", "-exec", "chmod", "ug-s", "{}", "+"], what="chmod")
        for link, targets in LINKS.items():
            target = next((t for t in targets if (root / link).with_name(t).exists()), None)
            if target and not os.path.lexists(root / link):
                (root / link).symlink_to(target)
        for name in enter.HOST_ETC:
            (root / "etc" / name).touch()
        certificates = root / enter.CERTIFICATES.lstrip("/")
        certificates.mkdir(parents=True, exist_ok=True)
        bundle = [path.read_text() for path in sorted(root.glob("usr/share/ca-certificates/mozilla/*.crt"))]
        write(certificates / "ca-certificates.crt", "".join(bundle))
        for name in ("usr/lib/modules", "usr/src"):
            (root / name).mkdir(parents=True, exist_ok=True)
        write(root / enter.MARKER.lstrip("/"), f"{root}\n")
        self.refresh()

    def refresh(self) -> None:
        """Puts this kdir's own way in beside the user space."""
        text = Path(enter.__file__).read_text(encoding="utf-8")
        program = self.path / "enter"
        write_if_other(program, text, 0o755)


class Place:
    """Where commands run: the host itself, or a user space."""

    def __init__(self, userspace: Userspace | None) -> None:
        self.userspace = userspace

    @property
    def root(self) -> str:
        return str(self.userspace.root) if self.userspace else ""

    @property
    def path(self) -> str:
        return str(self.userspace.path) if self.userspace else ""

    def enter(self) -> list[str]:
        """The words to put before a command to have it run there."""
        if not self.userspace:
            return ["env", f"PATH={enter.PATH}"]
        return ["/usr/bin/python3", "-IS", str(self.userspace.path / "enter"), self.root]

    def run(self, command: list[str], what: str, cwd: Path, seen: Callable[[str], None] | None = None) -> str:
        # A make above this one may have told it things that are no business of the kernel's.
        env = {name: os.environ[name] for name in ("HOME", "TMPDIR", "USER") if name in os.environ}
        return run([*self.enter(), *command], what=what, cwd=cwd, env=env, seen=seen)


def check_rustc(place: Place, config: str) -> None:
    """The compiler must be the kernel's very own: symbol names depend on its version string."""
    wanted = config_text(config, "CONFIG_RUSTC_VERSION_TEXT")
    found = place.run(["rustc", "--version"], "cannot run rustc", Path("/")).strip()
    if found != wanted:
        raise Error(f"the kernel was built by '{wanted}' but the packages have '{found}'; choose a --release they fit")


def config_text(config: str, name: str) -> str:
    """The value of a string in a kernel configuration."""
    for line in config.splitlines():
        if line.startswith(f"{name}="):
            return line.partition("=")[2].strip('"')
    return ""

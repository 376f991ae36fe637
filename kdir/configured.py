# SPDX-License-Identifier: GPL-2.0
"""A build directory whose kernel is built here: the distribution's source, configured by the user's fragments."""

import fcntl
import hashlib
import os
import re
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from pathlib import Path

from common import Error, note, phase, read_json, remove, run
from debian import Apt, Item, Kernel, Package, Store
from tree import KERNEL_ARCH, Tree
from userspace import Place

# Nothing else is built from these; Kconfig and Makefiles are read across architectures.
USELESS = (
    *("Documentation/[!K]*", "tools/perf", "tools/testing/*/*/*"),
    *(f"arch/{name}/*.{kind}" for name in ("[a-wyz]*", "xtensa") for kind in ("[chS]", "dts*")),
)
# Two thirds of the source, for kernels that few would boot in a virtual machine: the code is unpacked on demand.
LARGE = (
    *(f"drivers/{name}" for name in "accel gpu/drm iio infiniband media net/ethernet net/wireless staging".split()),
    "sound",
)
# What a module's build reads, of all that is there once the kernel is built.
KEPT = (
    *(".clippy.toml", ".config", ".kdir.json", "GNUmakefile", "Makefile", "Module.symvers", "System.map"),
    *("fragments.config", "image", "include", "rust", "samples/rust", "scripts", "certs/signing_key.*"),
    *("tools/objtool/objtool", "tools/bpf/resolve_btfids/resolve_btfids"),
)
ASSIGNMENT = re.compile(r"^(?:(CONFIG_\w+)=(.*)|# (CONFIG_\w+) is not set)$", re.MULTILINE)

# Options that come and go with releases need not hold in the end.
OPTIONAL = re.compile(r"^# Where there is such an option:\n(?:\S.*\n?)*", re.MULTILINE)


def settings(config: str) -> dict[str, str]:
    """The value of each option that a configuration mentions; the last one counts."""
    return {name or off: "n" if off else value.rstrip() for name, value, off in ASSIGNMENT.findall(config)}


class Fragments:
    """The files that say what is to be different from a kernel with everything off."""

    def __init__(self, files: Sequence[str]) -> None:
        self.paths = [str(Path(file).resolve()) for file in files]
        try:
            text = "\n".join(Path(path).read_text(encoding="utf-8") for path in self.paths)
        except OSError as error:
            raise Error(f"cannot read {error.filename}: {error.strerror}") from None
        self.stem = re.sub(r"[^A-Za-z0-9._]+", "-", Path(files[-1]).stem)[:24].strip("-.") or "custom"
        # What the user says about the name of the release wins.
        self.text = f'CONFIG_LOCALVERSION="-{self.stem}"\n\n{text}'

    def lost(self, config: str) -> list[str]:
        """What the fragments ask for and CONFIG, which was made from them, has not."""
        have = settings(config)
        wanted = settings(OPTIONAL.sub("", self.text))
        return [f"{name}={value}" for name, value in wanted.items() if have.get(name, "n") != value]


class ConfiguredTree(Tree):
    """A directory of the same shape as the others, named after the source's version and what the fragments say."""

    recipe = 1
    room = 1_700_000_000

    def __init__(self, top: Path, version: str, arch: str, fragments: Fragments, request: str) -> None:
        self.fragments = fragments
        upstream = re.sub(r"^\d+:", "", version).rpartition("-")[0]
        digest = hashlib.sha256("\n".join((str(self.recipe), version, fragments.text)).encode()).hexdigest()
        super().__init__(top, f"{upstream}-{fragments.stem}-{digest[:8]}", arch)
        # Of two directories made for one request, the newer one supersedes the older.
        self.request = [request, *fragments.paths]

    def recall(self, state: dict[str, object]) -> None:
        self.release = str(state["release"])
        self.set_llvm(str(state["llvm"]))

    def set_llvm(self, version: str) -> None:
        """Clang, since Rust under KASAN takes it."""
        self.llvm = version
        clang = (f"{name}-{version}" for name in ("clang", "lld", "llvm"))
        self.compiler = (*clang, "bison", "flex", "libelf-dev", "libssl-dev")

    def fits(self, state: dict[str, object], items: list[Item]) -> bool:
        return self.accepts(str(state["rustc"]), items) and state["llvm"] == self.llvm

    def packages(self, kernel: Kernel) -> tuple[Package, ...]:
        return (kernel.source,)

    def accepts(self, rustc: str, items: list[Item]) -> bool:
        """Any rustc of the version that the suite has will do, and that builds the kernel as well."""
        name = next(item.name for item in items if item.name.startswith("rustc_"))
        return re.findall(r"[\d.]*\d", rustc)[:1] == re.findall(r"_([\d.]*\d)", name)[:1]

    def check_rustc(self, place: Place) -> None:
        """What builds the kernel is what builds the modules."""

    def variables(self, gcc: str, native: str) -> tuple[list[str], list[str]]:
        return [f"ARCH={KERNEL_ARCH[self.arch]}"], [f"LLVM=-{self.llvm}"]

    def unpack(self, pool: Executor, store: Store, apt: Apt, kernel: Kernel) -> None:
        source = store.path(apt.item(kernel.source))
        with phase("unpacking the kernel's source, without what is large and seldom used"):
            self.begin()
            code = [f"{name}/*.[ch]" for name in LARGE]
            self.unpack_tar(source, kernel.source.name, [f"--exclude={{}}/{name}" for name in (*USELESS, *code)])
        (self.path / "fragments.config").write_text(self.fragments.text, encoding="utf-8")
        self.source = source

    def unpack_tar(self, source: Path, name: str, selection: list[str]) -> None:
        """Unpacks what SELECTION says, in tar's words, {} being the directory that holds it all."""
        script = (
            'set -o pipefail; deb=$1 name=$2; shift 2; dpkg-deb --fsys-tarfile "$deb" |'
            ' tar -xO "./usr/src/$name.tar.xz" | xz -dc -T0 |'
            ' tar -x -C . --strip-components=1 --no-same-owner --wildcards "$@"'
        )
        run(
            ["env", "LC_ALL=C", "bash", "-c", script, "bash", str(source), name]
            + [word.format(name) for word in selection],
            what=f"cannot unpack {name}",
            cwd=self.path,
        )

    def make(self, *words: str) -> list[str]:
        general, compilers = self.variables("", "")
        made = time.gmtime((self.path / "Makefile").stat().st_mtime)
        return [
            *("make", "--no-print-directory", f"-j{len(os.sched_getaffinity(0))}", *general, *compilers),
            # The same source and configuration give the same kernel, wherever it is built.
            *(f"KBUILD_BUILD_TIMESTAMP={time.strftime('%Y-%m-%d %H:%M:%S UTC', made)}", "KBUILD_BUILD_USER=kdir"),
            *("KBUILD_BUILD_HOST=kdir", *words),
        ]

    def configure(self, place: Place, kernel: Kernel) -> None:
        what = "cannot configure the kernel"
        place.run(self.make("KCONFIG_ALLCONFIG=fragments.config", "allnoconfig"), what, self.path)
        lost = self.fragments.lost(self.config())
        if lost:
            raise Error(
                f"this kernel's configuration does not take {', '.join(lost)}: the options do not exist in it, or lack"
                " something they depend on, or others force them"
            )
        for name in ("CONFIG_MODULES", "CONFIG_RUST"):
            if f"\n{name}=y\n" not in self.config():
                raise Error(f"the configuration lacks {name}=y, or what it depends on: no Rust module would fit")
        self.release = place.run(self.make("-s", "kernelrelease"), what, self.path).split()[-1]
        self.on = {name for name, value in settings(self.config()).items() if value != "n"}
        needed = [name for name in LARGE if self.uses(name)]
        if needed:
            self.unpack_tar(self.source, kernel.source.name, [f"{{}}/{name}" for name in needed])

    def uses(self, directory: str) -> bool:
        """Whether any option is on that the directory has, or builds something for."""
        there: set[str] = set()
        for name, pattern in (("Kconfig*", r"^\s*(?:menu)?config\s+(\w+)"), ("Makefile*", r"^obj-\$\(CONFIG_(\w+)\)")):
            for path in (self.path / directory).rglob(name):
                there.update(re.findall(pattern, path.read_text(encoding="utf-8", errors="replace"), re.MULTILINE))
        return any(f"CONFIG_{name}" in self.on for name in there)

    def build(self, place: Place, kernel: Kernel, native: str) -> None:
        with phase("configuring the kernel"):
            try:
                self.configure(place, kernel)
            except Error:
                remove(self.path)
                raise
        steps = 0

        def count(_line: str) -> None:
            nonlocal steps
            steps += 1

        image = self.path / "image/usr"
        modules = image / "lib/modules" / self.release
        what = f"cannot build the kernel {self.release}"
        with phase(f"building the kernel {self.release} (about 8 minutes)", lambda: f"{steps} steps"):
            place.run(self.make("bzImage", "modules"), what, self.path, count)
            install = self.make(f"INSTALL_MOD_PATH={image}", "INSTALL_MOD_STRIP=1", "DEPMOD=true", "modules_install")
            place.run(install, what, self.path)
            (modules / "kernel").mkdir(exist_ok=True)
            remove(modules / "build")
            (self.path / f"arch/{KERNEL_ARCH[self.arch]}/boot/bzImage").rename(modules / "vmlinuz")
            self.index_modules(place)

    def prune(self) -> None:
        arch = f"arch/{KERNEL_ARCH[self.arch]}"
        kept = {path for name in (*KEPT, f"{arch}/Makefile*", f"{arch}/include") for path in self.path.glob(name)}
        ways = {parent for path in kept for parent in path.parents}

        def clear(directory: Path) -> None:
            for path in directory.iterdir():
                if path in ways:
                    clear(path)
                elif path not in kept:
                    remove(path)

        clear(self.path)
        for name in ("rust", "scripts"):
            for path in (self.path / name).rglob("*"):
                if path.suffix in (".o", ".a", ".rlib", ".cmd"):
                    path.unlink()

    def finish(self, place: Place, kernel: Kernel, native: str) -> None:
        super().finish(place, kernel, native)
        self.supersede()

    def stamped(self) -> dict[str, object]:
        return {"llvm": self.llvm, "request": self.request}

    def supersede(self) -> None:
        """Removes what was made for the same request before, or for files that are gone, unless it is in use."""
        for stamp in self.path.parent.glob("*/.kdir.json"):
            request = read_json(stamp).get("request", [])
            paths = [word for word in request if word.startswith("/")]
            gone = not all(Path(path).exists() for path in paths)
            if request and stamp.parent != self.path and (gone or request == self.request):
                with unused(stamp.parent) as free:
                    if free:
                        note(f"removing {stamp.parent.name}, which {self.path.name} supersedes")
                        remove(stamp)
                        remove(stamp.parent)


def llvm_of(items: list[Item]) -> str:
    """The suite's own version of LLVM: that of the library which every user space has for bindgen."""
    versions = (re.match(r"libclang1-(\d+)_", item.name) for item in items)
    return next((match[1] for match in versions if match), "")


def hold(directory: Path) -> None:
    """Has the directory count as in use for as long as this process, or what it becomes or starts, is there."""
    with suppress(OSError):
        fd = os.open(directory / ".config", os.O_RDONLY)
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        os.set_inheritable(fd, True)


@contextmanager
def unused(directory: Path) -> Iterator[bool]:
    """Whether no command runs with this directory, and no module is built in it."""
    fds = []
    try:
        for path in (directory, directory / ".config"):
            fds.append(os.open(path, os.O_RDONLY))
            fcntl.flock(fds[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        for fd in fds:
            os.close(fd)

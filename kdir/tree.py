# SPDX-License-Identifier: GPL-2.0
"""The build directory: headers, kbuild and a little of the source put together, and the Rust metadata built."""

import os
from concurrent.futures import Executor
from pathlib import Path

from common import Error, phase, read_json, remove, run, write_if_other, write_json
from debian import Apt, Item, Kernel, Package, Store
from enter import PATH
from userspace import Place, check_rustc, config_text

# Raised when what is made changes, so that trees made by an older kdir are made anew.
RECIPE = 1
KERNEL_ARCH = {"amd64": "x86", "arm64": "arm64"}
CROSS_COMPILE = {"amd64": "x86_64-linux-gnu-", "arm64": "aarch64-linux-gnu-"}

GNUMAKEFILE = """\
# Written by kdir. A plain `make -C HERE M=DIR` builds the module in DIR, from anywhere: every goal is handed
# to the kernel's own Makefile, with what it needs, where the matching compiler is.

root := {root}
enter := $(if $(filter-out $(file </etc/kdir-userspace),$(root)),{enter})
# A variable given by the user wins over ours; LLVM= chooses the C compilers itself. Nothing is signed unless
# a key is given, since the distribution keeps its own. An editor is shown the sources at their host's path.
ours := {variables} $(if $(LLVM),,{compilers})
ours += $(if $(CONFIG_MODULE_SIG_KEY),,CONFIG_MODULE_SIG_ALL=)
ours += $(if $(filter rust-analyzer,$(MAKECMDGOALS)),$(addprefix rustc_sysroot=,$(root:=/usr)))
name = $(firstword $(subst =, ,$(1)))
ours := $(foreach word,$(ours),$(if $(filter command%,$(origin $(call name,$(word)))),,$(word)))
{host_path}
.PHONY: kdir $(MAKECMDGOALS)
$(or $(MAKECMDGOALS),all): kdir ; @:
# Each build writes a file of the tree anew, so they take turns.
kdir: ; +@flock . $(enter) make -f Makefile $(ours) $(MAKECMDGOALS)
"""

RUST_MAKEFILE = """\
include Makefile
kdir-rust: ; $(Q)$(MAKE) $(build)=rust
"""


class Tree:
    """A directory that is whole if its stamp is there: the stamp is written last, and what lacks it is made anew."""

    recipe = RECIPE
    room = 400_000_000  # of the kernel's source little is kept
    compiler: tuple[str, ...] = ()  # packages, besides those of every kernel

    def __init__(self, top: Path, release: str, arch: str) -> None:
        self.path = top / "build" / release
        self.release = release
        self.arch = arch
        self.stamp = self.path / ".kdir.json"

    def state(self) -> dict[str, object]:
        state = read_json(self.stamp)
        return state if state.get("recipe") == self.recipe else {}

    def recall(self, state: dict[str, object]) -> None:
        """Takes over what only the making of the directory showed."""

    def fits(self, state: dict[str, object], items: list[Item]) -> bool:
        """Whether modules can still be built with what the packages have."""
        return True

    def begin(self) -> None:
        remove(self.stamp)
        self.path.mkdir(parents=True, exist_ok=True)
        for path in self.path.parent.iterdir():  # what was interrupted, whatever it was to be
            if not (path / self.stamp.name).exists():
                remove(path)
        self.path.mkdir()

    def packages(self, kernel: Kernel) -> tuple[Package, ...]:
        return kernel.packages

    def accepts(self, rustc: str, items: list[Item]) -> bool:
        """The compiler must be the kernel's very own: symbol names depend on its version string."""
        return rustc == config_text(self.config(), "CONFIG_RUSTC_VERSION_TEXT")

    def check_rustc(self, place: Place) -> None:
        check_rustc(place, self.config())

    def unpack(self, pool: Executor, store: Store, apt: Apt, kernel: Kernel) -> None:
        with phase("unpacking the kernel's headers, image, and Rust sources"):
            self.begin()
            self.unpack_packages(pool, store, apt, kernel)
            self.check_config()
            self.unpack_source(store, apt, kernel)

    def unpack_packages(self, pool: Executor, store: Store, apt: Apt, kernel: Kernel) -> None:
        """Unpacks all but the source."""

        def deb(package: Package, directory: Path, strip: int, *members: str) -> None:
            directory.mkdir(exist_ok=True)
            run(
                ["sh", "-c", 'deb=$1; shift; dpkg-deb --fsys-tarfile "$deb" | tar -x "$@"', "sh"]
                + [str(store.path(apt.item(package))), "-C", str(directory), "--no-same-owner"]
                + [f"--strip-components={strip}", *members],
                what=f"cannot unpack {package.name}",
            )

        base = f"./usr/src/{kernel.common.name}"
        headers = f"./usr/src/{kernel.headers.name}"
        kbuild = f"./usr/lib/{kernel.kbuild.name}"
        deb(kernel.common, self.path, 4, base)
        deb(kernel.headers, self.path, 4, headers, *(f"--exclude={headers}/{name}" for name in
            ("Makefile", ".kernelvariables", "scripts", "tools")))  # fmt: skip
        deb(kernel.kbuild, self.path, 4, kbuild)
        jobs = [pool.submit(deb, package, self.path / "image", 0, "--exclude=./usr/share") for package in kernel.image]
        for job in jobs:
            job.result()
        self.arrange_image()

    def arrange_image(self) -> None:
        """Gives every packaging of the kernel image the same names."""
        image = self.path / "image"
        modules = image / "usr/lib/modules" / self.release
        if (image / "lib").is_dir():
            modules.parent.mkdir(parents=True, exist_ok=True)
            (image / "lib/modules" / self.release).rename(modules)
        vmlinuz = modules / "vmlinuz"
        for old in (modules / "vmlinuz.unsigned", image / f"boot/vmlinuz-{self.release}"):
            if old.exists() and not vmlinuz.exists():
                old.rename(vmlinuz)
        if not vmlinuz.exists():
            raise Error(f"the image package of {self.release} holds no vmlinuz where kdir knows to look")

    def unpack_source(self, store: Store, apt: Apt, kernel: Kernel) -> None:
        """Takes from the kernel's source the few directories that the headers packages lack."""
        name = kernel.source.name
        script = (
            'dpkg-deb --fsys-tarfile "$1" | tar -xO "./usr/src/$2.tar.xz" | xz -dc -T0 |'
            ' tar -x -C "$3" --strip-components=1 --no-same-owner --wildcards'
            ' "$2/rust" "$2/samples/rust" "$2/scripts/*rust*" "$2/scripts/Makefile" "$2/scripts/*-version.sh"'
            ' "$2/drivers/base/*.h"'
        )
        run(
            ["bash", "-c", f"set -o pipefail; {script}", "bash", str(store.path(apt.item(kernel.source))), name]
            + [str(self.path)],
            what=f"cannot unpack {name}",
        )

    def config(self) -> str:
        return (self.path / ".config").read_text(encoding="utf-8")

    def check_config(self) -> None:
        if "\nCONFIG_RUST=y\n" not in self.config():
            raise Error(f"the kernel {self.release} is built without Rust (CONFIG_RUST); choose another --release")

    def variables(self, gcc: str, native: str) -> tuple[list[str], list[str]]:
        """The variables the kernel's Makefile needs here: those always needed, and the compilers."""
        cross = "" if self.arch == native else CROSS_COMPILE[self.arch]
        general = [
            f"ARCH={KERNEL_ARCH[self.arch]}",
            f"KERNELRELEASE={self.release}",
            "DEBIAN_KERNEL_NO_CC_VERSION_CHECK=y",
            "may-sync-config=",
            "need-compiler=1",
        ]
        if cross:
            general.append(f"CROSS_COMPILE={cross}")
        return general, [f"CC={cross}gcc-{gcc}", f"HOSTCC=gcc-{gcc}"]

    def build(self, place: Place, kernel: Kernel, native: str) -> None:
        """Builds the Rust metadata, which is all that the headers packages lack."""
        with phase("building the Rust metadata (about a minute)"):
            self.build_metadata(place, kernel.gcc, native)

    def build_metadata(self, place: Place, gcc: str, native: str) -> None:
        what = "cannot build the Rust metadata"
        if self.arch == "amd64":
            script = (
                "RUSTC_BOOTSTRAP=1 rustc --edition=2021 -O -o scripts/generate_rust_target"
                " scripts/generate_rust_target.rs"
                " && scripts/generate_rust_target < include/config/auto.conf > scripts/target.json"
            )
            place.run(["sh", "-c", script], what, self.path)
        (self.path / "kdir.mk").write_text(RUST_MAKEFILE, encoding="utf-8")
        general, compilers = self.variables(gcc, native)
        jobs = f"-j{len(os.sched_getaffinity(0))}"
        place.run(["make", "--no-print-directory", jobs, "-f", "kdir.mk", *general, *compilers, "kdir-rust"], what,
                  self.path)  # fmt: skip
        if not (self.path / "rust/libkernel.rmeta").exists():
            raise Error(f"{what}: make made no libkernel.rmeta")
        self.index_modules(place)

    def index_modules(self, place: Place) -> None:
        command = ["depmod", "-b", "image/usr", "-m", "/lib/modules", self.release]
        place.run(command, "cannot index the kernel's modules", self.path)

    def prune(self) -> None:
        """Removes what was needed on the way only."""
        rust = self.path / "rust"
        for pattern in ("*.o", "*.rlib", "helpers/*.o"):
            for path in rust.glob(pattern):
                path.unlink()
        remove(self.path / "kdir.mk")
        remove(self.path / "scripts/generate_rust_target")

    def finish(self, place: Place, kernel: Kernel, native: str) -> None:
        self.prune()
        self.write_makefile(place, kernel.gcc, native)
        state = {
            "recipe": self.recipe,
            "release": self.release,
            "version": kernel.version,
            "gcc": kernel.gcc,
            "rustc": config_text(self.config(), "CONFIG_RUSTC_VERSION_TEXT"),
            "userspace": place.path,
        }
        write_json(self.stamp, {**state, **self.stamped()})

    def stamped(self) -> dict[str, object]:
        """What else to know the directory by."""
        return {}

    def write_makefile(self, place: Place, gcc: str, native: str) -> None:
        general, compilers = self.variables(gcc, native)
        text = GNUMAKEFILE.format(
            root=place.root,
            enter=" ".join(place.enter()) if place.userspace else "",
            variables=" ".join(general),
            compilers=" ".join(compilers),
            host_path="" if place.userspace else f"export PATH := {PATH}\n",
        )
        write_if_other(self.path / "GNUmakefile", text)

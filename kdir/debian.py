# SPDX-License-Identifier: GPL-2.0
"""The distribution's packages: the mirror, apt with a state of its own, versions, kernel releases."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from common import Error, remove, run, write

KEYRINGS = ("/usr/share/keyrings/debian-archive-keyring.gpg", "/usr/share/keyrings/debian-archive-keyring.pgp")
APT_HELPER = "/usr/lib/apt/apt-helper"
# Names under which a mirror of the whole distribution is listed in an apt configuration.
SUITES = ("bookworm", "trixie", "forky", "duke", "sid", "stable", "testing", "unstable", "oldstable", "bullseye")
# Released suites have more to them: point updates, and the newer kernels.
EXTRA_SUITES = {"trixie": ("trixie-updates", "trixie-backports")}
# These are re-signed daily, and a mirror that lags a little serves an expired signature.
ROLLING = ("forky", "duke", "sid", "testing", "unstable")


@dataclass(frozen=True)
class Package:
    name: str
    version: str
    arch: str
    depends: str
    filename: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Item:
    """A package file to download: where it is, what it is called here, and what it must be."""

    uri: str
    name: str
    size: int
    hash: str


@dataclass(frozen=True)
class Kernel:
    release: str
    version: str
    gcc: str
    image: tuple[Package, ...]
    headers: Package
    common: Package
    kbuild: Package
    source: Package

    @property
    def packages(self) -> tuple[Package, ...]:
        return (*self.image, self.headers, self.common, self.kbuild, self.source)


Key = tuple[int, tuple[tuple[tuple[int, ...], int], ...], tuple[tuple[tuple[int, ...], int], ...]]


def version_key(version: str) -> Key:
    """A sort key that orders version strings as dpkg does."""

    def order(char: str) -> int:
        return -1 if char == "~" else ord(char) if char.isalpha() else ord(char) + 256

    def part(text: str) -> tuple[tuple[tuple[int, ...], int], ...]:
        return tuple(
            ((*map(order, letters), 0), int(digits or 0)) for letters, digits in re.findall(r"(\D*)(\d*)", text)
        )

    epoch, colon, rest = version.partition(":")
    if not colon:
        epoch, rest = "0", version
    upstream, _, revision = rest.rpartition("-") if "-" in rest else (rest, "", "")
    return int(epoch), part(upstream), part(revision)


def parse_packages(text: str, prefix: str = "") -> Iterator[Package]:
    """The packages of an apt Packages file whose names start with PREFIX."""
    for stanza in text.split("\n\n"):
        if not stanza.lstrip("\n").startswith(f"Package: {prefix}"):
            continue
        field = dict(re.findall(r"^([A-Za-z0-9-]+): *(.*)$", stanza, re.MULTILINE))
        yield Package(
            field["Package"],
            field["Version"],
            field["Architecture"],
            field.get("Depends", ""),
            field["Filename"],
            int(field["Size"]),
            field["SHA256"],
        )


def kernels(packages: Iterable[Package], flavour: str, arch: str, native: str, unsigned: bool = False) -> list[Kernel]:
    """Every release of FLAVOUR for which image, headers, kbuild and source all exist, the newest first.

    The image is the signed one that users install; with UNSIGNED its unsigned twin will do, which is
    published some days earlier. KBuild holds programs, so it is taken for NATIVE, the machine at hand.
    """
    index: dict[tuple[str, str, str], Package] = {}
    sources: dict[str, Package] = {}
    for package in packages:
        index[package.name, package.version, package.arch] = package
        if re.fullmatch(r"linux-source-[\d.]+", package.name):
            sources[package.version] = package
    found = []
    for (name, version, package_arch), headers in index.items():
        match = re.fullmatch(rf"linux-headers-(\d[^-]*)-{re.escape(flavour)}", name)
        if not match or package_arch != arch:
            continue
        abi = match[1]
        release = f"{abi}-{flavour}"
        common = index.get((f"linux-headers-{abi}-common", version, "all"))
        kbuild = index.get((f"linux-kbuild-{abi}", version, native))
        source = sources.get(version)
        names = [f"linux-binary-{release}", f"linux-image-{release}"]
        if unsigned:
            names += [f"linux-binary-unsigned-{release}", f"linux-image-{release}-unsigned"]
        image = next((index[n, version, arch] for n in names if (n, version, arch) in index), None)
        if not (common and kbuild and source and image):
            continue
        parts = [image]
        parts += [index[n, version, arch] for n in (f"linux-modules-{release}", f"linux-base-{release}")
                  if (n, version, arch) in index]  # fmt: skip
        compiler = re.search(r"\bgcc-(\d+)", headers.depends)
        found.append(
            Kernel(release, version, compiler[1] if compiler else "", tuple(parts), headers, common, kbuild, source)
        )
    return sorted(found, key=lambda kernel: version_key(kernel.version), reverse=True)


def choose_mirror(targets: str) -> str:
    """The Debian mirror among the index targets that apt-get lists, one stanza of fields each."""
    origins: dict[str, str] = {}
    for stanza in targets.split("\n\n"):
        field: dict[str, str] = dict(re.findall(r"^([A-Za-z-]+): *(.*)$", stanza, re.MULTILINE))
        if field.get("Component") == "main" and field.get("Release") in SUITES:
            uri = field["Repo-URI"].rstrip("/")
            origins[uri] = field.get("Origin") or origins.get(uri, "")
    # Another vendor may use Debian's suite names. The Release file, once apt has it, says whose it is.
    for wanted in ("Debian", ""):
        for uri, origin in origins.items():
            if origin == wanted:
                return uri
    raise Error(
        "the apt configuration of this host names no Debian mirror; give one, as in --mirror=http://HOST/debian"
    )


def host_mirror() -> str:
    what = "cannot read the apt configuration of this host"
    # Only without the Release files does apt list what it has not fetched yet.
    known, all_of_them = (
        run(["apt-get", *option, "indextargets", "Created-By: Packages"], what=what)
        for option in ([], ["--no-release-info"])
    )
    return choose_mirror(f"{known}\n\n{all_of_them}")


def transport(dump: str) -> str:
    """The settings, among those that apt-config dumps, about how to reach the network."""
    pattern = r"^Acquire::(?:https?|Retries|ForceIPv[46])\b[^\n]* \"[^\n]+\";$"
    return "".join(f"{line}\n" for line in re.findall(pattern, dump, re.MULTILINE))


def host_transport() -> str:
    return transport(run(["apt-config", "dump"], what="cannot read the apt configuration of this host"))


class Apt:
    """apt for one suite, with nothing of the host's but its keyring, its proxies and its mirror."""

    def __init__(self, top: Path, suite: str, archs: tuple[str, ...], mirror: str) -> None:
        self.suite = suite
        self.archs = archs
        self.mirror = mirror
        self.dir = top / "apt" / "-".join((suite, *archs))
        self.env = {"APT_CONFIG": str(self.dir / "apt.conf"), "LC_ALL": "C", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        self.stamp = self.dir / "updated"

    def configure(self, check_valid: bool = True) -> None:
        keyring = next((name for name in KEYRINGS if Path(name).exists()), None)
        if not keyring:
            raise Error("cannot verify packages: no debian-archive-keyring.gpg here; install debian-archive-keyring")
        for name in ("etc/apt.conf.d", "etc/preferences.d", "state/lists/partial", "cache/archives/partial"):
            (self.dir / name).mkdir(parents=True, exist_ok=True)
        write(self.dir / "status", "")
        options = f"signed-by={keyring} arch={','.join(self.archs)}" + ("" if check_valid else " check-valid-until=no")
        suites = (self.suite, *EXTRA_SUITES.get(self.suite, ()))
        write(self.dir / "sources.list", "".join(f"deb [{options}] {self.mirror} {s} main\n" for s in suites))
        settings = {
            "Dir": f"{self.dir}/",
            "Dir::Etc": "etc/",
            "Dir::Etc::sourcelist": str(self.dir / "sources.list"),
            "Dir::Etc::netrc": "/etc/apt/auth.conf",
            "Dir::Etc::netrcparts": "/etc/apt/auth.conf.d",
            "Dir::State": "state/",
            "Dir::State::status": str(self.dir / "status"),
            "Dir::Cache": "cache/",
            "Dir::Cache::pkgcache": "",
            "Dir::Cache::srcpkgcache": "",
            "APT::Architecture": self.archs[0],
            "APT::Install-Recommends": "0",
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
            "Acquire::ForceHash": "SHA256",
        }
        text = "".join(f'{name} "{value}";\n' for name, value in settings.items())
        archs = "".join(f'"{arch}"; ' for arch in self.archs)
        write(self.dir / "apt.conf", f"{text}APT::Architectures {{ {archs}}};\n{host_transport()}")

    def update(self) -> str:
        """Fetches the package lists and checks their signatures; returns what should be known about them."""
        remove(self.stamp)
        self.configure()
        notice = ""
        command = ["apt-get", "-qq", "-o", "APT::Update::Error-Mode=any", "update"]
        what = f"cannot fetch the package lists of {self.suite} from {self.mirror}"
        try:
            run(command, what=what, env=self.env)
        except Error as error:
            text = str(error)
            if "NO_PUBKEY" in text or "not signed" in text or "EXPKEYSIG" in text:
                raise Error(
                    f"cannot verify {self.suite}: this host's debian-archive-keyring lacks its key;"
                    " install a newer debian-archive-keyring"
                ) from None
            if "expired" not in text and "not valid" not in text or self.suite not in ROLLING:
                raise Error(f"{text}; check the network, or choose another mirror with --mirror") from None
            self.configure(check_valid=False)
            run(command, what=what, env=self.env)
            notice = f"the signature of {self.suite} is good, but past its date: this mirror lags behind"
        write(self.stamp, self.mirror + "\n")
        return notice

    @property
    def updated(self) -> bool:
        return self.stamp.exists() and self.stamp.read_text(encoding="utf-8").strip() == self.mirror

    def kernel_packages(self) -> Iterator[Package]:
        for path in sorted((self.dir / "state/lists").glob("*_Packages")):
            yield from parse_packages(path.read_text(encoding="utf-8"), "linux-")

    def resolve(self, names: Iterable[str]) -> list[Item]:
        """The package files that installing NAMES into an empty system takes."""
        text = run(
            ["apt-get", "-qq", "--print-uris", "install", *names],
            what=f"cannot choose packages from {self.suite}",
            env=self.env,
        )
        pattern = re.compile(r"^'([^']+)' (\S+) (\d+) (\S*)$", re.MULTILINE)
        return [Item(m[1], m[2], int(m[3]), m[4]) for m in pattern.finditer(text)]

    def item(self, package: Package) -> Item:
        uri = f"{self.mirror}/{quote(package.filename, safe='/')}"
        return Item(uri, Path(package.filename).name, package.size, f"SHA256:{package.sha256}")


class Store:
    """The downloaded packages, kept: a file here is whole and has been checked."""

    def __init__(self, top: Path) -> None:
        self.dir = top / "packages"
        self.incoming = self.dir / "incoming"

    def path(self, item: Item) -> Path:
        return self.dir / item.name

    def missing(self, items: Iterable[Item]) -> list[Item]:
        return [i for i in items if not self.path(i).exists() or self.path(i).stat().st_size != i.size]

    def fetched(self, items: Iterable[Item]) -> int:
        total = 0
        for item in items:
            for path in (self.path(item), self.incoming / item.name):
                if path.exists():
                    total += path.stat().st_size
                    break
        return total

    def clean(self) -> None:
        remove(self.incoming)
        self.incoming.mkdir(parents=True)

    def fetch(self, apt: Apt, items: Iterable[Item]) -> None:
        wanted = self.missing(items)
        if not wanted:
            return
        # Of a file: URI apt says where the file is, of a copy: URI it makes one.
        uris = [re.sub("^file:", "copy:", item.uri) for item in wanted]
        arguments = [part for u, i in zip(uris, wanted) for part in (u, str(self.incoming / i.name), i.hash)]
        run([APT_HELPER, "download-file", *arguments], what="cannot download packages", env=apt.env)
        for item in wanted:
            (self.incoming / item.name).rename(self.path(item))

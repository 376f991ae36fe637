# SPDX-License-Identifier: GPL-2.0
"""Tests of the parts of kdir that need no network: python3 -m unittest discover -s kdir"""

import importlib.machinery
import importlib.util
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import common
import configured
import debian
import enter
import tree
import userspace
from debian import Package, choose_mirror, kernels, parse_packages, version_key

MIRROR = "http://mirror.example/debian"


def deb(name: str, version: str, arch: str = "amd64", depends: str = "") -> Package:
    return Package(name, version, arch, depends, f"pool/{name}_{version}_{arch}.deb", 1, "0" * 64)


def kernel_debs(abi: str, version: str, flavour: str = "cloud-amd64", arch: str = "amd64") -> list[Package]:
    release = f"{abi}-{flavour}"
    series = ".".join(abi.split("+")[0].split(".")[:2])
    return [
        deb(f"linux-headers-{release}", version, arch, f"gcc-14-for-host, linux-headers-{abi}-common (= {version})"),
        deb(f"linux-headers-{abi}-common", version, "all"),
        deb(f"linux-kbuild-{abi}", version),
        deb(f"linux-source-{series}", version, "all"),
        deb(f"linux-image-{release}", version, arch),
        deb(f"linux-binary-{release}", version, arch),
        deb(f"linux-modules-{release}", version, arch),
        deb(f"linux-base-{release}", version, arch),
    ]


class Versions(unittest.TestCase):
    def test_order_is_dpkgs(self) -> None:
        ordered = [
            "1.0~~", "1.0~rc1-1", "1.0-1", "1.0-1+b1", "1.0a-1", "1.0+dfsg-1", "1.0.1-1", "6.12.107-1",
            "7.2.9-1~bpo13+1", "7.2.9-1", "7.2.12-1~bpo13+1", "7.2.12-1", "7.3.4-1~bpo13+1", "7.10-1", "1:0.1-1",
        ]  # fmt: skip
        self.assertEqual(sorted(reversed(ordered), key=version_key), ordered)
        for low, high in zip(ordered, ordered[1:]):
            self.assertEqual(subprocess.run(["dpkg", "--compare-versions", low, "lt", high], check=False).returncode, 0)

    def test_equal(self) -> None:
        self.assertEqual(version_key("7.02-1"), version_key("7.2-1"))
        self.assertEqual(version_key("0:7.2"), version_key("7.2"))


class Releases(unittest.TestCase):
    def releases(self, packages: list[Package], unsigned: bool = False) -> list[str]:
        return [kernel.release for kernel in kernels(packages, "cloud-amd64", "amd64", "amd64", unsigned)]

    def test_newest_comes_first(self) -> None:
        packages = kernel_debs("7.2.9+deb13", "7.2.9-1~bpo13+1") + kernel_debs("7.2.12+deb13", "7.2.12-1~bpo13+1")
        self.assertEqual(self.releases(packages), ["7.2.12+deb13-cloud-amd64", "7.2.9+deb13-cloud-amd64"])

    def test_every_part_is_needed(self) -> None:
        old = kernel_debs("7.2.9+deb13", "7.2.9-1")
        new = kernel_debs("7.2.12+deb13", "7.2.12-1")
        for part in ("linux-headers-7.2.12+deb13-common", "linux-kbuild-7.2.12+deb13", "linux-source-7.2"):
            packages = old + [p for p in new if p.name != part]
            self.assertEqual(self.releases(packages), ["7.2.9+deb13-cloud-amd64"], part)

    def test_source_is_of_the_same_version(self) -> None:
        packages = [p for p in kernel_debs("7.2.12+deb13", "7.2.12-1") if p.name != "linux-source-7.2"]
        self.assertEqual(self.releases([*packages, deb("linux-source-7.2", "7.2.9-1", "all")]), [])

    def test_image_is_the_signed_one_unless_pinned(self) -> None:
        old = kernel_debs("7.2.12+deb13", "7.2.12-1")
        new = [p for p in kernel_debs("7.3.4+deb13", "7.3.4-1") if not p.name.startswith(("linux-image", "linux-binary"))]
        new.append(deb("linux-binary-unsigned-7.3.4+deb13-cloud-amd64", "7.3.4-1"))
        self.assertEqual(self.releases(old + new), ["7.2.12+deb13-cloud-amd64"])
        self.assertEqual(self.releases(old + new, unsigned=True)[0], "7.3.4+deb13-cloud-amd64")

    def test_parts(self) -> None:
        kernel = kernels(kernel_debs("7.2.12+deb13", "7.2.12-1"), "cloud-amd64", "amd64", "amd64")[0]
        self.assertEqual(kernel.gcc, "14")
        self.assertEqual([p.name.split("-")[1] for p in kernel.image], ["binary", "modules", "base"])

    def test_flavours_are_not_mixed_up(self) -> None:
        packages = kernel_debs("7.2.12+deb13", "7.2.12-1") + kernel_debs("7.2.9+deb13", "7.2.9-1", "amd64")
        self.assertEqual([k.release for k in kernels(packages, "amd64", "amd64", "amd64")], ["7.2.9+deb13-amd64"])

    def test_another_architecture_uses_this_machines_kbuild(self) -> None:
        packages = kernel_debs("7.2.12+deb13", "7.2.12-1", "cloud-arm64", "arm64")
        kernel = kernels(packages, "cloud-arm64", "arm64", "amd64")[0]
        self.assertEqual((kernel.headers.arch, kernel.kbuild.arch), ("arm64", "amd64"))


class PackageLists(unittest.TestCase):
    TEXT = """\
Package: linux-kbuild-7.2.12+deb13
Source: linux
Version: 7.2.12-1~bpo13+1
Architecture: amd64
Depends: pahole, libc6 (>= 2.38)
Description: with: a colon
Filename: pool/main/l/linux/k.deb
Size: 12
SHA256: abc

Package: lintian
Version: 2
Architecture: all
Filename: pool/l.deb
Size: 1
SHA256: def
"""

    def test_fields(self) -> None:
        (package,) = parse_packages(self.TEXT, "linux-")
        self.assertEqual((package.version, package.size, package.sha256), ("7.2.12-1~bpo13+1", 12, "abc"))
        self.assertEqual(len(list(parse_packages(self.TEXT))), 2)


class Mirrors(unittest.TestCase):
    """Whatever way the sources are written, apt reads them, and the right one is taken."""

    def mirror(self, files: dict[str, str]) -> str:
        with tempfile.TemporaryDirectory() as top:
            for name, text in files.items():
                path = Path(top, "etc", name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
            Path(top, "state/lists/partial").mkdir(parents=True)
            Path(top, "apt.conf").write_text(f'Dir "{top}/"; Dir::Etc "etc/"; Dir::State "state/";', encoding="utf-8")
            os.environ["APT_CONFIG"] = f"{top}/apt.conf"
            try:
                return debian.host_mirror()
            finally:
                del os.environ["APT_CONFIG"]

    def test_one_line(self) -> None:
        self.assertEqual(self.mirror({"sources.list": f"deb {MIRROR} bookworm main contrib\n"}), MIRROR)

    def test_one_line_with_options(self) -> None:
        line = f"deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {MIRROR}/ trixie main\n"
        self.assertEqual(self.mirror({"sources.list": f"# a comment\n\n{line}"}), MIRROR)

    def test_deb822(self) -> None:
        text = (
            "Enabled: no\nTypes: deb\nURIs: http://off.example/debian\nSuites: trixie\nComponents: main\n\n"
            "Types: deb deb-src\n# a comment\n"
            f"URIs: {MIRROR}\nSuites: trixie trixie-updates\n"
            "Components: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
        )
        self.assertEqual(self.mirror({"sources.list.d/debian.sources": text}), MIRROR)

    def test_security_and_others_are_passed_over(self) -> None:
        lines = (
            "deb http://security.example/debian-security trixie-security main\n"
            "deb http://vendor.example/node nodistro main\n"
            "deb http://vendor.example/linux trixie stable\n"
            f"deb {MIRROR} trixie main\n"
        )
        self.assertEqual(self.mirror({"sources.list": lines}), MIRROR)

    def test_a_known_origin_decides(self) -> None:
        stanza = "Repo-URI: {}/\nRelease: trixie\nComponent: main\n{}\n"
        vendor = stanza.format("http://vendor.example/debian", "Origin: Vendor\n")
        unknown = stanza.format("http://unknown.example/debian", "")
        ours = stanza.format(MIRROR, "Origin: Debian\n")
        self.assertEqual(choose_mirror(vendor + unknown + ours), MIRROR)
        self.assertEqual(choose_mirror(ours + stanza.format(MIRROR, "")), MIRROR)
        with self.assertRaises(common.Error):
            choose_mirror(vendor)

    def test_none(self) -> None:
        with self.assertRaisesRegex(common.Error, "--mirror"):
            self.mirror({"sources.list": "deb http://archive.example/ubuntu noble main\n"})


class Transport(unittest.TestCase):
    def test_proxies_are_taken_over_and_nothing_else(self) -> None:
        dump = (
            'APT::Architecture "amd64";\nAcquire "";\nAcquire::http "";\nAcquire::http::Proxy "http://proxy:3142";\n'
            'Acquire::https::mirror.example::Verify-Peer "true";\nAcquire::Check-Valid-Until "false";\n'
            'Acquire::Retries "2";\nAcquire::AllowInsecureRepositories "1";\nAcquire::httpx "1";\n'
        )
        self.assertEqual(
            debian.transport(dump),
            'Acquire::http::Proxy "http://proxy:3142";\nAcquire::https::mirror.example::Verify-Peer "true";\n'
            'Acquire::Retries "2";\n',
        )


class CommandLine(unittest.TestCase):
    def run_kdir(self, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
        program = str(Path(__file__).with_name("kdir"))
        with tempfile.TemporaryDirectory() as cache:
            return subprocess.run(
                [program, *args], env={**os.environ, "XDG_CACHE_HOME": cache, **env}, capture_output=True, text=True,
                check=False,
            )  # fmt: skip

    def test_the_mirror_may_be_chosen(self) -> None:
        for args, env in ((["--mirror", "file:///nonexistent-a"], {}), ([], {"MIRROR": "file:///nonexistent-a"})):
            result = self.run_kdir("--list", *args, **env)
            self.assertEqual(result.returncode, 1)
            self.assertIn("file:///nonexistent-a", result.stderr.splitlines()[-1])
            self.assertEqual(result.stdout, "")

    def test_usage(self) -> None:
        self.assertEqual(self.run_kdir("--").returncode, 2)
        self.assertEqual(self.run_kdir("--arch", "vax").returncode, 2)
        self.assertEqual(self.run_kdir("--help").returncode, 0)
        self.assertEqual(self.run_kdir("--arch", "arm64", "--config", "/dev/null").returncode, 2)
        self.assertEqual(self.run_kdir("--config", "/nonexistent").returncode, 1)

    def test_a_cache_the_kernel_cannot_be_built_in(self) -> None:
        with tempfile.TemporaryDirectory(prefix="a b") as cache:
            result = self.run_kdir(XDG_CACHE_HOME=cache)
        self.assertEqual(result.returncode, 1)
        self.assertIn("XDG_CACHE_HOME", result.stderr)


    def test_a_release_says_its_flavour_and_architecture(self) -> None:
        loader = importlib.machinery.SourceFileLoader("kdir_program", str(Path(__file__).with_name("kdir")))
        spec = importlib.util.spec_from_loader(loader.name, loader)
        assert spec
        program = importlib.util.module_from_spec(spec)
        sys.modules[loader.name] = program
        loader.exec_module(program)
        for args, wanted in (
            (["--release", "7.2.12+deb13-rt-amd64"], ("rt-amd64", "amd64")),
            (["--release", "7.2.12+deb13-cloud-arm64"], ("cloud-arm64", "arm64")),
            (["--arch", "arm64"], ("cloud-arm64", "arm64")),
            (["--flavour", "amd64"], ("amd64", "amd64")),
        ):
            options = program.parse(args)
            self.assertEqual((options.flavour, options.arch), wanted, args)
        options = program.parse(["--with", "a", "b", "--with", "c", "--", "make", "--with", "--"])
        self.assertEqual((options.extra, options.command), (("a", "b", "c"), ["make", "--with", "--"]))


class Trees(unittest.TestCase):
    def test_a_tree_without_its_stamp_is_made_anew(self) -> None:
        with tempfile.TemporaryDirectory() as top:
            made = tree.Tree(Path(top), "7.2.12+deb13-cloud-amd64", "amd64")
            made.begin()
            (made.path / "left-over").touch()
            self.assertEqual(made.state(), {})
            common.write_json(made.stamp, {"recipe": tree.RECIPE, "release": made.release})
            self.assertEqual(made.state()["release"], made.release)
            common.write_json(made.stamp, {"recipe": tree.RECIPE - 1})
            self.assertEqual(made.state(), {})
            interrupted = made.path.with_name("7.2.12-debug-00000000")
            interrupted.mkdir()
            made.begin()
            self.assertEqual(list(made.path.iterdir()), [])
            self.assertFalse(interrupted.exists())

    def test_one_name_for_every_packaging_of_the_image(self) -> None:
        release = "7.3.4+deb13-cloud-amd64"
        for old in (f"boot/vmlinuz-{release}", f"usr/lib/modules/{release}/vmlinuz.unsigned"):
            with tempfile.TemporaryDirectory() as top:
                made = tree.Tree(Path(top), release, "amd64")
                made.begin()
                image = made.path / "image" / old
                image.parent.mkdir(parents=True)
                image.touch()
                (made.path / "image/usr/lib/modules" / release).mkdir(parents=True, exist_ok=True)
                made.arrange_image()
                self.assertTrue((made.path / "image/usr/lib/modules" / release / "vmlinuz").exists(), old)

    def test_variables_given_by_the_user_win(self) -> None:
        with tempfile.TemporaryDirectory() as top:
            made = tree.Tree(Path(top), "7.2.12+deb13-cloud-amd64", "amd64")
            made.begin()
            (made.path / "Makefile").write_text("all a b: ; @echo $@ $(ARCH) $(CC) $(HOSTCC) $(V)\n", encoding="utf-8")
            made.write_makefile(userspace.Place(None), "14", "amd64")

            def make(*args: str) -> str:
                command = ["make", "-s", "--no-print-directory", "-C", str(made.path), *args]
                return subprocess.run(command, capture_output=True, text=True, check=True).stdout

            self.assertEqual(make(), "all x86 gcc-14 gcc-14\n")
            self.assertEqual(make("a", "b", "V=1"), "a x86 gcc-14 gcc-14 1\nb x86 gcc-14 gcc-14 1\n")
            self.assertEqual(make("ARCH=arm64", "CC=my cc"), "all arm64 my cc gcc-14\n")
            self.assertEqual(make("LLVM=1"), "all x86 cc\n")


class Configured(unittest.TestCase):
    """Kernels built here, of the user's fragments."""

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.top = Path(directory.name)

    def fragments(self, **texts: str) -> configured.Fragments:
        files = []
        for name, text in texts.items():
            files.append(str(self.top / f"{name}.config"))
            Path(files[-1]).write_text(text, encoding="utf-8")
        return configured.Fragments(files)

    def tree(self, fragments: configured.Fragments, version: str = "7.2.12-1~bpo13+1", request: str = "trixie"
             ) -> configured.ConfiguredTree:  # fmt: skip
        return configured.ConfiguredTree(self.top, version, "amd64", fragments, request)

    def made(self, fragments: configured.Fragments, version: str = "7.2.12-1~bpo13+1") -> configured.ConfiguredTree:
        """A directory that counts as whole."""
        made = self.tree(fragments, version)
        made.set_llvm("19")
        made.path.mkdir(parents=True)
        (made.path / ".config").touch()
        state = {"recipe": made.recipe, "release": "7.2.12-b", **made.stamped()}
        common.write_json(made.stamp, state)
        return made

    def test_the_name_says_what_it_is(self) -> None:
        name = self.tree(self.fragments(a="CONFIG_A=y\n", b="CONFIG_B=y\n")).path.name
        self.assertRegex(name, r"^7\.2\.12-b-[0-9a-f]{8}$")
        self.assertEqual(self.tree(self.fragments(a="CONFIG_A=y\n", b="CONFIG_B=y\n"), request="forky").path.name, name)
        others = [
            self.tree(self.fragments(a="CONFIG_A=y\n", b="CONFIG_B=m\n")),
            self.tree(self.fragments(a="CONFIG_Z=y\n", b="CONFIG_B=y\n")),
            self.tree(self.fragments(b="CONFIG_A=y\n\nCONFIG_B=y\n\n", c="")),
            self.tree(self.fragments(a="CONFIG_A=y\n", b="CONFIG_B=y\n"), "7.2.12-2"),
        ]
        self.assertEqual(len({name, *(other.path.name for other in others)}), 5)
        self.assertRegex(self.tree(self.fragments(x=""), "1:7.3~rc1-1").path.name, r"^7\.3~rc1-x-")

    def test_the_release_is_named_after_the_last_file(self) -> None:
        text = self.fragments(a="", b="").text
        self.assertEqual(configured.settings(text)["CONFIG_LOCALVERSION"], '"-b"')
        text = self.fragments(a='CONFIG_LOCALVERSION="-mine"\n', b="").text
        self.assertEqual(configured.settings(text)["CONFIG_LOCALVERSION"], '"-mine"')
        for name, stem in (("de bug.x.config", "de-bug.x"), (".config", "config"), ("---", "custom"), ("x" * 99, "x" * 24)):
            (self.top / name).touch()
            self.assertEqual(configured.Fragments([str(self.top / name)]).stem, stem)

    def test_what_not_every_release_has_is_not_missed(self) -> None:
        text = "CONFIG_A=y\n# Where there is such an option:\nCONFIG_B=y\nCONFIG_C=y\n\nCONFIG_D=y\n"
        self.assertEqual(
            self.fragments(a=text).lost('CONFIG_LOCALVERSION="-a"\nCONFIG_C=y\n'), ["CONFIG_A=y", "CONFIG_D=y"]
        )

    def test_what_a_configuration_lost_is_named(self) -> None:
        fragments = self.fragments(
            a='CONFIG_A=y\nCONFIG_B=y \nCONFIG_C=4\nCONFIG_D=y\n# CONFIG_E is not set\nCONFIG_F="x"\n# CONFIG_G=y\nCONFIG_H=n\n',
            b="# CONFIG_D is not set\n",
        )
        config = 'CONFIG_LOCALVERSION="-b"\nCONFIG_A=y\nCONFIG_B=y\nCONFIG_C=4\n# CONFIG_E is not set\nCONFIG_F="x"\n'
        self.assertEqual(fragments.lost(config), [])
        config = config.replace("CONFIG_A=y", "# CONFIG_A is not set").replace("=4", "=5").replace("CONFIG_B=y", "CONFIG_B=m")
        config = config.replace("# CONFIG_E is not set", "CONFIG_E=y")
        self.assertEqual(fragments.lost(config), ["CONFIG_A=y", "CONFIG_B=y", "CONFIG_C=4", "CONFIG_E=n"])

    def test_a_file_that_is_not_there(self) -> None:
        with self.assertRaisesRegex(common.Error, "^cannot read /nonexistent/a: No such file or directory$"):
            configured.Fragments(["/nonexistent/a"])

    def test_it_is_found_by_its_name_alone(self) -> None:
        fragments = self.fragments(b="CONFIG_B=y\n")
        self.assertEqual(self.tree(fragments).state(), {})
        self.made(fragments)
        found = self.tree(fragments)
        found.recall(found.state())
        self.assertEqual(found.release, "7.2.12-b")
        self.assertEqual(self.tree(self.fragments(b="CONFIG_B=m\n")).state(), {})

    def test_a_newer_one_supersedes_that_of_the_same_files(self) -> None:
        old = self.made(self.fragments(b="CONFIG_B=y\n"))
        other = self.made(self.fragments(c="CONFIG_B=y\n"))
        gone = self.made(self.fragments(d="CONFIG_B=y\n"))
        (self.top / "d.config").unlink()
        stock = self.top / "build/7.2.12+deb13-cloud-amd64"
        stock.mkdir()
        common.write_json(stock / ".kdir.json", {"recipe": tree.RECIPE})
        new = self.made(self.fragments(b="CONFIG_B=m\n"))
        new.supersede()
        self.assertEqual([path.exists() for path in (old.path, gone.path, other.path, stock, new.path)],
                         [False, False, True, True, True])  # fmt: skip

    def test_what_is_in_use_stays(self) -> None:
        old = self.made(self.fragments(b="CONFIG_B=y\n"))
        new = self.made(self.fragments(b="CONFIG_B=m\n"))
        program = "import configured, pathlib, sys; configured.hold(pathlib.Path(sys.argv[1])); print(flush=True); input()"
        for command in ([sys.executable, "-c", program], ["flock", str(old.path), sys.executable, "-c", "print(flush=True); input()"]):
            with subprocess.Popen([*command, str(old.path)], cwd=Path(__file__).parent, stdin=subprocess.PIPE,
                                  stdout=subprocess.PIPE) as user:  # fmt: skip
                assert user.stdout
                user.stdout.readline()
                new.supersede()
                self.assertTrue(old.path.exists())
                user.communicate(b"\n")
        new.supersede()
        self.assertFalse(old.path.exists())

    def test_only_what_modules_need_is_kept(self) -> None:
        made = self.made(self.fragments(b=""))
        kept = ["Makefile", "arch/x86/Makefile", "arch/x86/include/asm/page.h", "include/linux/mm.h", "rust/kernel/lib.rs",
                "rust/libkernel.rmeta", "scripts/mod/modpost", "tools/objtool/objtool", "image/usr/lib/modules/7/kernel/a.o",
                ".config", ".kdir.json"]  # fmt: skip
        other = ["vmlinux", "mm/mmap.c", "arch/x86/mm/fault.o", "arch/arm/Kconfig", "rust/kernel.o", "scripts/mod/.modpost.o.cmd",
                 "tools/objtool/check.c"]  # fmt: skip
        for name in (*kept, *other):
            (made.path / name).parent.mkdir(parents=True, exist_ok=True)
            (made.path / name).touch()
        for _ in range(2):
            made.prune()
            self.assertEqual([name for name in kept if not (made.path / name).exists()], [])
            self.assertEqual([name for name in other if (made.path / name).exists()], [])

    def test_large_code_is_unpacked_if_it_is_configured(self) -> None:
        made = self.made(self.fragments(b=""))
        (made.path / "drivers/net/can").mkdir(parents=True)
        (made.path / "drivers/net/can/Kconfig").write_text("menuconfig CAN\n\nconfig CAN_DEV\n", encoding="utf-8")
        (made.path / "drivers/net/Makefile").write_text("obj-y += can/\nobj-$(CONFIG_NET) += loopback.o\n", encoding="utf-8")
        for on, wanted in (("CAN_RAW", False), ("CAN", True), ("CAN_DEV", True), ("NET", True)):
            made.on = {f"CONFIG_{on}"}
            self.assertEqual(made.uses("drivers/net"), wanted, on)

    def test_the_suites_compiler_is_taken(self) -> None:
        made = self.tree(self.fragments(b=""))
        items = [debian.Item("u", "rustc_1.85.1+dfsg1-1+deb13u1_amd64.deb", 1, "")]
        self.assertTrue(made.accepts("rustc 1.85.1 (4eb161250 2025-03-15) (built from a source tarball)", items))
        self.assertFalse(made.accepts("rustc 1.97.1 (4eb161250 2025-03-15)", items))
        self.assertFalse(made.accepts("", items))
        items += [debian.Item("u", f"{name}_1_amd64.deb", 1, "") for name in ("libclang-common-20-dev", "libclang1-19")]
        made.set_llvm(configured.llvm_of(items))
        self.assertIn("lld-19", made.compiler)
        self.assertEqual(made.variables("", ""), (["ARCH=x86"], ["LLVM=-19"]))
        state: dict[str, object] = {"rustc": "rustc 1.85.1 (4eb161250 2025-03-15)", "llvm": "19"}
        self.assertTrue(made.fits(state, items))
        self.assertFalse(made.fits({**state, "llvm": "18"}, items))
        self.assertFalse(made.fits({**state, "rustc": "rustc 1.85.0"}, items))


class Children(unittest.TestCase):
    def test_lines_are_seen_as_they_come(self) -> None:
        seen: list[str] = []
        out = common.run(["sh", "-c", "echo a; echo b >&2; echo c"], what="x", seen=seen.append)
        self.assertEqual((out, seen), ("a\nb\nc\n", ["a\n", "b\n", "c\n"]))
        with self.assertRaisesRegex(common.Error, "^cannot build: a.c:1: error: b$"):
            common.run(["sh", "-c", "echo CC; echo a.c:1: error: b >&2; exit 2"], what="cannot build", seen=seen.append)


class Others(unittest.TestCase):
    def test_config_text(self) -> None:
        text = 'CONFIG_RUST=y\nCONFIG_RUSTC_VERSION_TEXT="rustc 1.85.1 (4eb161250)"\n'
        self.assertEqual(userspace.config_text(text, "CONFIG_RUSTC_VERSION_TEXT"), "rustc 1.85.1 (4eb161250)")
        self.assertEqual(userspace.config_text(text, "CONFIG_CC"), "")

    def test_another_architecture_takes_a_cross_compiler(self) -> None:
        names = userspace.package_names("14", "arm64", "amd64", ["qemu-system-arm"])
        self.assertLessEqual({"gcc-14", "gcc-14-aarch64-linux-gnu", "qemu-system-arm"}, set(names))

    def test_complaint_names_the_cause(self) -> None:
        self.assertEqual(common.complaint("W: a warning\nE: it broke\n"), "it broke")
        self.assertIn("XDG_CACHE_HOME", common.complaint("tar: x: Cannot write: No space left on device\ntar: bye"))
        self.assertEqual(common.complaint(""), "")

    def test_a_failed_child_is_one_line(self) -> None:
        with self.assertRaisesRegex(common.Error, "^cannot try: E2$"):
            common.run(["sh", "-c", "echo E1; echo 'E: E2' >&2; exit 3"], what="cannot try")

    def test_entering_what_is_gone(self) -> None:
        program = enter.__file__
        result = subprocess.run(
            [sys.executable, program, "/nonexistent/root", "true"], capture_output=True, text=True, check=False
        )
        self.assertEqual(result.returncode, 1)
        self.assertRegex(result.stderr, "^kdir: .*run kdir again.*\n$")


if __name__ == "__main__":
    unittest.main()

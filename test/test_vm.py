# SPDX-License-Identifier: GPL-2.0
"""Tests of the virtual machine tool, most of them by running it: see `vm --help`.

They need what it needs: run them where kdir/kdir has set KDIR.
"""

import importlib.machinery
import importlib.util
import os
import pty
import re
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path
from typing import Any

VM = Path(__file__).resolve().parent / "vm"


def load() -> Any:
    """The tool as a module."""
    loader = importlib.machinery.SourceFileLoader("vm", str(VM))
    spec = importlib.util.spec_from_loader("vm", loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    sys.modules["vm"] = module
    sys.dont_write_bytecode = True
    loader.exec_module(module)
    return module


vm = load()


class Report(unittest.TestCase):
    """What counts as a kernel's report of its own fault, and what does not."""

    BAD = (
        "[    2.446784] Kernel panic - not syncing: sysrq triggered crash",
        "[   12.000000] BUG: kernel NULL pointer dereference, address: 0000000000000000",
        "[   12.000000] Oops: Oops: 0000 [#1] SMP NOPTI",
        "[   12.000000] Oops: general protection fault, probably for non-canonical address",
        "[    1.000000][   T99] kernel BUG at mm/usercopy.c:102!",
        "[    1.000000] ------------[ cut here ]------------",
        "[    1.000000] WARNING: CPU: 0 PID: 1 at kernel/panic.c:1 warn+0x1/0x2",
        "[  123.000000] INFO: task insmod:99 blocked for more than 60 seconds.",
        "[   40.000000] watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [sh:55]",
        "[   40.000000] rcu: INFO: rcu_preempt self-detected stall on CPU",
        "[   40.000000] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
        "[   40.000000] rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { 1-... }",
        "[    3.000000] BUG: Bad page state in process insmod  pfn:00abc",
        "[    3.000000] WARNING: possible circular locking dependency detected",
        "[    3.000000] BUG: KASAN: use-after-free in f+0x1/0x2",
        "[    3.000000] BUG kmalloc-64 (Tainted: G  O): Poison overwritten",
        "[    3.000000] UBSAN: array-index-out-of-bounds in mm/x.c:1:2",
        "[    3.000000] BUG: KCSAN: assert: race in f / g",
        "[    3.000000] kmemleak: 2 new suspected memory leaks (see /sys/kernel/debug/kmemleak)",
        "[    3.000000] Unable to handle kernel paging request at virtual address 0000000000000008",
        "[    3.000000] Internal error: Oops: 0000000096000004 [#1]  SMP",
    )
    GOOD = (
        "[    0.1] Spectre V2 : WARNING: Unprivileged eBPF is enabled",
        "[    0.100000] Kernel command line: console=ttyS0 oops=panic hung_task_panic=1",
        "[    0.1] kmemleak: Kernel memory leak detector initialized (mem pool available: 15)",
        "[    3.000000] map_driver: size=0: out of range, 1 to 2",
        "[    3.000000] traps: a.out[99] general protection fault ip:1 sp:2 error:0 in a.out",
        "[    3.000000] a.out[99]: segfault at 0 ip 1 sp 2 error 4 in a.out",
        "[    0.5] Run /init as init process",
        "[    3.000000] map_driver: loading out-of-tree module taints kernel.",
    )

    def test_reports(self) -> None:
        for line in self.BAD:
            with self.subTest(line=line):
                log = f"[    0.0] before\n{line}\n[   99.0] after\n".encode()
                self.assertEqual(vm.first_report(log), line)

    def test_no_reports(self) -> None:
        log = "\n".join(self.GOOD).encode()
        self.assertIsNone(vm.first_report(log))

    def test_races(self) -> None:
        start = "[    9.376440] BUG: KCSAN: data-race in folio_lock / lruvec_stat_mod_folio\n"
        end = "[    9.376440] " + "=" * 66 + "\n"
        core = "[    9.376440]  folio_lock+0x17/0x30\n"
        ours = "[    9.376440]  open+0x17/0x30 [map_driver]\n"
        self.assertIsNone(vm.first_report((start + core + end + ours).encode()))
        self.assertIsNotNone(vm.first_report((start + core + ours + end).encode()))
        self.assertIsNotNone(vm.first_report((start + core + end + start + ours + end).encode()))
        contents = start.replace("folio_lock / lruvec_stat_mod_folio", "_copy_from_iter / _copy_to_iter")
        self.assertIsNone(vm.first_report((contents + ours + end).encode()))
        self.assertIsNotNone(vm.first_report((contents + ours + end + start + ours + end).encode()))

    def test_debugfs(self) -> None:
        cut = "[   21.849299] ------------[ cut here ]------------\n"
        text = "[   21.849299] debugfs file owner did not clean up at exit: stats\n"
        at = "[   21.849299] WARNING: at full_proxy_open_regular+0xe1/0x190, CPU#1: suite/130\n"
        stock = at.replace("WARNING:", "WARNING: fs/debugfs/file.c:461")
        other = "[   21.849299] WARNING: at folio_put+0xe1/0x190, CPU#1: suite/130\n"
        self.assertIsNone(vm.first_report((cut + text + at).encode()))
        self.assertIsNone(vm.first_report((text + stock).encode()))
        self.assertIsNotNone(vm.first_report((cut + at).encode()))
        self.assertIsNotNone(vm.first_report((cut + text + at + other).encode()))
        self.assertIsNotNone(vm.first_report((cut + text + at + "\n" * vm.NEAR + cut).encode()))

    def test_before_init(self) -> None:
        early = b"[    0.124000] BUG: KASAN: wild-memory-access in do_raw_spin_lock+0xbf/0x200\n"
        init = b"[    4.640115] Run /.vm/init as init process\n"
        self.assertIsNone(vm.first_report(early + init))
        self.assertIsNotNone(vm.first_report(early))
        self.assertIsNotNone(vm.first_report(init + early))


class Size(unittest.TestCase):
    """Sizes of disks."""

    def test_size(self) -> None:
        self.assertEqual(vm.size_of("512"), 512)
        self.assertEqual(vm.size_of("64M"), 64 << 20)
        for bad in ("", "M", "-1", "1.5G", "1GB", "64 M"):
            with self.subTest(text=bad), self.assertRaises(vm.Error):
                vm.size_of(bad)


class Pause(unittest.TestCase):
    """Lengths and numbers of pauses."""

    def test_pauses(self) -> None:
        pauses = vm.Pauses("50:100")
        self.assertEqual((pauses.longest, pauses.count), (0.05, 100))
        for bad in ("", "50", "50:", ":5", "1.5:3", "50:-1"):
            with self.subTest(text=bad), self.assertRaises(vm.Error):
                vm.Pauses(bad)


class Run(unittest.TestCase):
    """The tool as a program."""

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory(prefix="test-vm-")
        self.addCleanup(directory.cleanup)
        self.tmp = Path(directory.name)

    def command(self, script: str, *options: str) -> list[str]:
        """The command line that runs `script`."""
        path = self.tmp / "it's a script.sh"
        path.write_text(script)
        return [str(VM), *options, str(path)]

    def run_vm(self, script: str, *options: str) -> subprocess.CompletedProcess[bytes]:
        """Runs `script` and waits."""
        return subprocess.run(self.command(script, *options), capture_output=True, check=False)

    def test_status_and_output(self) -> None:
        script = r"""
            printf 'a\r\nb\000c\377\033' ; echo error >&2
            sleep 1000 & head -c 3000000 /dev/zero ; printf end ; exit 42
        """
        done = self.run_vm(script)
        self.assertEqual(done.returncode, 42, done.stderr.decode())
        self.assertEqual(done.stdout, b"a\r\nb\0c\xff\x1berror\n" + bytes(3000000) + b"end")

    def test_output_by_name(self) -> None:
        done = self.run_vm("echo one >/dev/stdout; echo two | tee /dev/stderr; sleep 1; echo three")
        self.assertEqual(sorted(done.stdout.split()), [b"one", b"three", b"two", b"two"])
        self.assertEqual(done.returncode, 0, done.stderr.decode())

    def test_what_is_there(self) -> None:
        overlay = self.tmp / "overlay"
        (overlay / "etc/deep").mkdir(parents=True)
        (overlay / "etc/deep/file").write_text("overlaid")
        (overlay / "bin").mkdir()
        (overlay / "bin/tool").write_text("#!/bin/sh\necho tool $0\n")
        (overlay / "bin/tool").chmod(0o755)
        (overlay / "etc/link").symlink_to("deep/file")
        (overlay / "tmp").mkdir()
        (overlay / "tmp/file").write_text("over tmpfs\n")
        (overlay / "init").write_text("#!/bin/false\n")
        (self.tmp / "one").write_text("one")
        (self.tmp / "one").chmod(0o751)
        script = """
            uname -r; pwd; id -u; cat /etc/link; echo; tool; stat -c '%a %u %s' /opt/x/1
            cat /tmp/file; stat -c %a /tmp
            for m in /proc /sys /dev /dev/pts /dev/shm /tmp /sys/kernel/debug; do
                grep -q " $m " /proc/mounts || echo $m is not mounted
            done
            ping -c 1 -q 127.0.0.1 | grep -c ' 0% packet loss'
            nproc; grep -cw la57 /proc/cpuinfo
            modprobe zram; grep -c '^zram ' /proc/modules
            blockdev --getsize64 /dev/vda
            grep -wo frobnicate=1 /proc/cmdline
            read line; echo "stdin: $?"; readlink /proc/self/fd/3
            su nobody -s /bin/sh -c 'id -un'
        """
        done = self.run_vm(
            script, "--overlay", str(overlay), "--file", f"{self.tmp}/one:/opt/x/1", "--smp=2",
            "--cpu=max,la57=off", "--mem=512", "--module=zram", "--disk=3M",
            "--append=frobnicate=1",
        )
        release = (Path(os.environ["KDIR"]) / "include/config/kernel.release").read_text()
        expected = (
            f"{release}/root\n0\noverlaid\ntool /usr/bin/tool\n751 0 3\nover tmpfs\n1777\n"
            "1\n2\n0\n1\n3145728\nfrobnicate=1\nstdin: 1\nnobody\n"
        )
        self.assertEqual(done.stdout.decode(), expected)
        self.assertEqual(done.returncode, 0, done.stderr.decode())

    def test_panic(self) -> None:
        done = self.run_vm("echo before; echo c >/proc/sysrq-trigger; echo after")
        self.assertEqual((done.returncode, done.stdout), (125, b"before\n"))
        self.assertIn(b"Kernel panic - not syncing: sysrq triggered crash", done.stderr)
        self.assertIn(b"Linux version", done.stderr)

    def test_warning(self) -> None:
        script = "echo '<4>WARNING: a kernel said' >/dev/kmsg; echo after; exit 3"
        done = self.run_vm(script)
        self.assertEqual((done.returncode, done.stdout), (125, b"after\n"))
        self.assertIn(b"WARNING: a kernel said", done.stderr)

    def test_power_off(self) -> None:
        done = self.run_vm("echo off; poweroff -f")
        self.assertEqual((done.returncode, done.stdout), (125, b"off\n"))

    def test_timeout(self) -> None:
        for limit in ("0.1", "20"):  # before the machine is up and, unless the host is busy, after
            with self.subTest(limit=limit):
                done = self.run_vm("sleep 1000", f"--timeout={limit}")
                self.assertEqual(done.returncode, 124, done.stderr.decode())
                self.assertIn(f"after {limit} s", done.stderr.decode())

    def test_pause(self) -> None:
        # The longest time, in hundredths of a second, between two moments in which the guest ran.
        script = """
            now() { read -r up _ </proc/uptime; now=${up%.*}${up#*.}; }
            now; end=$((now + 1000)); last=$now; most=0
            while [ $now -lt $end ]; do
                now; [ $((now - last)) -le $most ] || most=$((now - last)); last=$now
            done
            echo $most
        """
        done = self.run_vm(script, "--pause=500:5", "--smp=1")
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        told = re.search(rb"stopped a virtual CPU (\d) times, for (\S+) s at most\n", done.stderr)
        assert told, done.stderr.decode()
        self.assertIn(int(told[1]), range(1, 6))
        self.assertGreater(float(told[2]), 0)
        self.assertGreaterEqual(int(done.stdout) + 5, float(told[2]) * 100)

    def test_icount(self) -> None:
        # The same instructions each time, so the same time, whatever the host is doing.
        script = """
            read -r before _ </proc/uptime; sleep 100; read -r after _ </proc/uptime
            echo $((${after%.*} - ${before%.*}))
        """
        done = self.run_vm(script, "--icount", "--timeout=300")
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        self.assertIn(int(done.stdout), range(99, 103))

    def test_errors(self) -> None:
        for options in (["--cpu=bogus"], ["--mem=x"], ["--smp=2", "--icount"], ["--disk=1Q"],
                        ["--file=/nonexistent:/x"], ["--file=x"], ["--overlay=/nonexistent"],
                        ["--module=bogus"], ["--busybox=/bin/sh"], ["--pause=5"]):
            with self.subTest(options=options):
                done = self.run_vm("true", *options)
                self.assertEqual((done.returncode, done.stdout), (126, b""))
                self.assertRegex(done.stderr.decode(), r"\Avm: [^\n]+\n\Z")

    def stray(self, pid: int) -> str:
        """The command line of a process, empty if there is none."""
        try:
            return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
        except (FileNotFoundError, ProcessLookupError):
            return ""

    def test_no_stray_processes(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL):
            with self.subTest(signal=number):
                command = self.command("echo up; sleep 1000")
                # What a shell runs in the background ignores SIGINT, and so would this.
                with subprocess.Popen(
                    command, stdout=subprocess.PIPE,
                    preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
                ) as process:
                    assert process.stdout
                    self.assertEqual(process.stdout.readline(), b"up\n")
                    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
                    qemu = int(children.read_text())
                    self.assertIn("qemu", self.stray(qemu))
                    process.send_signal(number)
                    expected = -9 if number == signal.SIGKILL else 128 + number
                    self.assertEqual(process.wait(300), expected)
                deadline = time.monotonic() + 300
                while "qemu" in self.stray(qemu) and time.monotonic() < deadline:
                    time.sleep(0.05)
                self.assertNotIn("qemu", self.stray(qemu))

    def test_reader_goes_away(self) -> None:
        with subprocess.Popen(self.command("yes"), stdout=subprocess.PIPE) as process:
            assert process.stdout
            self.assertEqual(process.stdout.readline(), b"y\n")
            process.stdout.close()
            self.assertEqual(process.wait(300), 128 + signal.SIGPIPE)

    def test_shell_from_a_pipe(self) -> None:
        typed = b"tty; echo $((6 * 7))\nsleep 1\nexit 5\n"
        done = subprocess.run([VM, "--shell"], input=typed, capture_output=True, check=False)
        self.assertEqual(done.returncode, 5, done.stderr.decode())
        self.assertIn(b"/dev/hvc0\r\n42\r\n", done.stdout)

    def test_shell_at_the_end_of_input(self) -> None:
        done = subprocess.run([VM, "--shell", "--timeout=300"], input=b"sleep 1; echo $((6 * 7))\n",
                              capture_output=True, check=False)
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        self.assertIn(b"42\r\n", done.stdout)

    def test_shell_on_a_terminal(self) -> None:
        ours, theirs = pty.openpty()
        seen = b""

        def expect(pattern: bytes) -> None:
            nonlocal seen
            while not re.search(pattern, seen):
                seen += os.read(ours, 1 << 10)
            seen = b""

        with subprocess.Popen([VM, "--shell", "--timeout=300"], stdin=theirs, stdout=theirs,
                              stderr=subprocess.PIPE) as process:
            os.close(theirs)
            expect(rb"# ")
            os.write(ours, b"sleep 1000\r")
            expect(rb"\n")
            time.sleep(1)
            os.write(ours, b"\x03")  # Ctrl-C is the guest's
            expect(rb"# ")
            os.write(ours, b"echo $((6 * 7))\r")
            expect(rb"\n42\r")
            os.write(ours, b"\x1d")  # Ctrl-] ends it
            self.assertEqual(process.wait(300), 0)
        os.close(ours)


if __name__ == "__main__":
    unittest.main()

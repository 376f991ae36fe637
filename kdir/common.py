# SPDX-License-Identifier: GPL-2.0
"""What every part of kdir uses: its error, its progress lines, its child processes, its files."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


class Error(Exception):
    """A failure the user can do something about: one line that says what, why and the cure."""


def note(text: str) -> None:
    print(f"kdir: {text}", file=sys.stderr, flush=True)


def size(count: int) -> str:
    return f"{count / 1e6:.0f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"


@contextmanager
def phase(what: str, progress: Callable[[], str] | None = None) -> Iterator[None]:
    """One line on stderr: what is being done and, once done, how long it took.

    On a terminal PROGRESS adds to that line while the work goes on.
    """
    start = time.monotonic()
    print(f"kdir: {what} ...", end="", file=sys.stderr, flush=True)
    finished = threading.Event()

    def watch() -> None:
        while not finished.wait(0.3):
            seconds = f"{time.monotonic() - start:.0f} s"
            text = f"{progress()}, {seconds}" if progress else seconds
            print(f"\r\033[Kkdir: {what} ... {text}", end="", file=sys.stderr, flush=True)

    watcher = threading.Thread(target=watch, daemon=True) if sys.stderr.isatty() else None
    if watcher:
        watcher.start()
    failed = True
    try:
        yield
        failed = False
    finally:
        finished.set()
        if watcher:
            watcher.join()
            print(f"\r\033[Kkdir: {what} ...", end="", file=sys.stderr)
        print(" failed" if failed else f" {time.monotonic() - start:.1f} s", file=sys.stderr, flush=True)


def kill(child: subprocess.Popen[str]) -> None:
    """Ends a child and all that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


def follow(child: subprocess.Popen[str], seen: Callable[[str], None]) -> tuple[str, str]:
    assert child.stdout
    lines = []
    with child.stdout:
        for line in child.stdout:
            lines.append(line)
            seen(line)
    child.wait()
    return "".join(lines), ""


class Children:
    """The processes this one has started, so that none of them outlives it."""

    def __init__(self) -> None:
        self.running: set[subprocess.Popen[str]] = set()
        self.mutex = threading.Lock()
        self.stopped = False
        self.lock_fd: int | None = None

    def run(
        self,
        command: list[str],
        *,
        what: str,
        cwd: Path | None = None,
        env: dict[str, str] | None = None,
        seen: Callable[[str], None] | None = None,
    ) -> str:
        """Runs COMMAND quietly and gives its standard output; an Error with its last complaint if it fails.

        SEEN is called with each line as it comes, those of standard error included.
        """
        with self.mutex:
            if self.stopped:
                raise Error("interrupted")
            child = subprocess.Popen(
                command,
                cwd=cwd,
                env=env,
                text=True,
                errors="replace",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT if seen else subprocess.PIPE,
                process_group=0,
                # Should we be killed, what is left of the child keeps the lock until it is gone too.
                pass_fds=() if self.lock_fd is None else (self.lock_fd,),
            )
            self.running.add(child)
        try:
            out, err = follow(child, seen) if seen else child.communicate()
        except BaseException:
            kill(child)
            raise
        finally:
            with self.mutex:
                self.running.discard(child)
        if child.returncode != 0:
            raise Error(f"{what}: {complaint(err or out) or f'status {child.returncode}'}")
        return out

    @contextmanager
    def stopping(self) -> Iterator[None]:
        """Kills them all, and lets none be started for as long as this lasts."""
        with self.mutex:
            self.stopped = True
            for child in self.running:
                kill(child)
        yield
        self.stopped = False


def complaint(text: str) -> str:
    """The line of a program's output that says why it failed."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for line in lines:
        if "No space left on device" in line or "Wrote only" in line:
            return "no space left on the device; free some, or set XDG_CACHE_HOME to a directory with room"
    marked = [line for line in lines if line.startswith(("E: ", "error", "Error")) or "error:" in line or "***" in line]
    return (marked or lines or [""])[0].removeprefix("E: ").rstrip(".")


children = Children()
run = children.run


def read_json(path: Path) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            data = json.load(file)
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def write(path: Path, text: str, mode: int = 0o644) -> None:
    """Writes a file so that it is seen whole or not at all."""
    new = path.with_name(f"{path.name}.{os.getpid()}")
    new.write_text(text, encoding="utf-8")
    new.chmod(mode)
    new.rename(path)


def write_if_other(path: Path, text: str, mode: int = 0o644) -> None:
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write(path, text, mode)


def write_json(path: Path, data: dict[str, Any]) -> None:
    write(path, json.dumps(data, indent=1) + "\n")


def remove(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def lock(path: Path) -> int:
    """Waits until no other kdir makes anything in this cache; the lock goes with the descriptor."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        note("another kdir, or what is left of a killed one, is at work in this cache: waiting for it")
        fcntl.flock(fd, fcntl.LOCK_EX)
    children.lock_fd = fd
    return fd


def unlock(fd: int) -> None:
    children.lock_fd = None
    os.close(fd)

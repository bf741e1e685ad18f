"""Child processes that never outlive their parent."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import NoReturn, Self

__all__ = [
    "Process",
    "ProcessGroup",
    "call",
    "find_free_port",
    "wait_for_http",
    "wait_until",
]

_PR_SET_PDEATHSIG = 1
_STOP_SECONDS = 15.0


def call(command: Sequence[str], environ: Mapping[str, str] | None = None) -> None:
    """Run a command to its end, or to that of this process.

    Raises:
        RuntimeError: It failed; the text holds its output.
    """
    result = subprocess.run(  # noqa: S603  # fixed commands of this project
        command,
        env={**os.environ, **(environ or {})},
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=_die_with_parent(),  # no threads are running yet
    )
    if result.returncode:
        name = f"{Path(command[0]).name} {command[1]}"
        raise RuntimeError(f"{name} failed:\n{result.stdout}{result.stderr}")


def find_free_port() -> int:
    """Return a loopback port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(slots=True)
class Process:
    """A running child in a session of its own.

    Attributes:
        name: For messages.
        popen: The process.
        log: Its output.
    """

    name: str
    popen: subprocess.Popen[bytes]
    log: Path

    @property
    def running(self) -> bool:
        """Whether it still runs."""
        return self.popen.poll() is None

    def signal_group(self, number: signal.Signals) -> None:
        """Send a signal to the process and all its children."""
        try:
            os.killpg(self.popen.pid, number)
        except ProcessLookupError:
            return

    def stop(self) -> None:
        """Stop the whole group, politely at first."""
        self.signal_group(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.popen.wait(_STOP_SECONDS)
        # Also where the leader is gone: it may have left children behind.
        self.signal_group(signal.SIGKILL)
        self.popen.wait()

    def tail(self, lines: int = 20) -> str:
        """Return the end of the output."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


@dataclass(slots=True)
class ProcessGroup:
    """Children that are stopped, last one first, when the block ends, however it ends."""

    log_folder: Path
    processes: list[Process] = field(default_factory=list)
    _handlers: dict[signal.Signals, object] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self.log_folder.mkdir(parents=True, exist_ok=True)
        for number in (signal.SIGTERM, signal.SIGHUP):
            self._handlers[number] = signal.signal(number, _exit)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number in (signal.SIGINT, *self._handlers):
            signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C must not leave a server behind
        for process in reversed(self.processes):
            process.stop()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal returned

    def start(
        self,
        name: str,
        command: Sequence[str],
        *,
        environ: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        user: str | None = None,
    ) -> Process:
        """Start a child; its output goes to ``<log_folder>/<name>.log``."""
        log = self.log_folder / f"{name}.log"
        with log.open("wb") as output:
            popen = subprocess.Popen(  # noqa: S603  # fixed commands of this project
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environ or {})},
                cwd=cwd,
                user=user,
                start_new_session=True,
                preexec_fn=_die_with_parent(),  # noqa: PLW1509  # no threads are running yet
            )
        process = Process(name, popen, log)
        self.processes.append(process)
        return process

    def finish(self, process: Process) -> None:
        """Wait for a child that ends by itself.

        Raises:
            RuntimeError: It failed; the text holds the end of its output.
        """
        code = process.popen.wait()
        self.processes.remove(process)
        if code:
            raise RuntimeError(f"{process.name} failed; the end of {process.log}:\n{process.tail(40)}")


def wait_for_http(url: str, process: Process, *, seconds: float = 60.0) -> None:
    """Wait until a URL answers with anything.

    Raises:
        RuntimeError: The process ended or the time is over; the text holds the end of its output.
    """

    def answers() -> bool:
        try:
            with urllib.request.urlopen(url, timeout=2):  # noqa: S310  # loopback
                return True
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False

    wait_until(answers, process, seconds)


def wait_until(ready: Callable[[], bool], process: Process, seconds: float) -> None:
    """Wait for a condition while a process runs; see ``wait_for_http``."""
    deadline = time.monotonic() + seconds
    while not ready():
        if not process.running:
            raise RuntimeError(f"{process.name} stopped at start:\n{process.tail()}")
        if time.monotonic() > deadline:
            raise RuntimeError(f"{process.name} did not answer within {seconds:.0f} s:\n{process.tail()}")
        time.sleep(0.05)


def _die_with_parent() -> Callable[[], None]:
    """Return what a child does first: ask Linux to end it when its parent is killed, with no clean-up."""
    parent = os.getpid()

    def ask() -> None:
        try:
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        except (AttributeError, OSError):
            return  # not Linux: the block's end still stops it
        if os.getppid() != parent:
            os._exit(1)  # the parent was killed before the child could ask

    return ask


def _exit(number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)

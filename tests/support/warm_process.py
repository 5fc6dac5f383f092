"""Processes of Python that begin at once: each is forked from one that has imported everything.

The imports of ``dsql-outbox publish`` take most of a second of CPU, a fork a fiftieth of it. A
process has the words, environment, folder and descriptors that it is given, and ends as others do,
except that Python does not take its modules apart once the program has exited with a code. Of what
Python itself reads from its environment, only PYTHONPATH counts.
"""

import atexit
import fcntl
import gc
import json
import os
import pkgutil
import runpy
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import Final

from tests.support.checkout import ROOT

import dsql_outbox

# What commands import in their functions.
_LAZY: Final = [
    "nats",
    "opentelemetry.exporter.otlp.proto.http.metric_exporter",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.exporter.prometheus",
    "opentelemetry.sdk.metrics.export",
    "opentelemetry.sdk.trace.export",
    "rich.live",
    "rich.table",
    "uvloop",
]
_NUMBER: Final = struct.Struct("!i")
_UNUSED: Final = tuple(
    f"dsql_outbox.{name}"
    for name in ("__", "aws_lambda", "django", "fastapi", "schema.alembic", "starlette", "testing")
)
_SIGNALS: Final = (signal.SIGCHLD, signal.SIGINT)
_ONE: Final = Lock()
"""Of the threads that fork; two that begin at once would start a server each, and drop one."""


class Forked:
    """A process that was forked."""

    def __init__(self, pid: int, ended: socket.socket) -> None:
        self.pid = pid
        self._ended = ended
        self._code: int | None = None

    def wait(self, timeout: float) -> int:
        """Exit code, or the negative number of the signal that ended it; raises `TimeoutError`."""
        if self._code is None:
            self._ended.settimeout(timeout)
            self._code = _read(self._ended)
            self._ended.close()
        return self._code

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if self._code is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)


def fork(words: Sequence[str], env: Mapping[str, str], descriptors: Sequence[int]) -> Forked:
    """Start ``python`` with the words ``-m MODULE ..`` or ``-c CODE ..``.

    The descriptors become its 0, 1 and 2.
    A terminal becomes that of the process, in a session of its own.
    """
    ended, its_end = socket.socketpair()
    order = json.dumps([words, dict(env), str(Path.cwd())]).encode()
    with its_end, _ONE:
        server, _ = _server()
        socket.send_fds(server, [_NUMBER.pack(len(order))], [its_end.fileno(), *descriptors])
        server.sendall(order)
    return Forked(_read(ended), ended)


@cache
def _server() -> tuple[socket.socket, object]:
    ours, its = socket.socketpair()
    with its:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(its.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[its.fileno()],
            cwd=ROOT,
        )
    return ours, process  # it ends with our end of the pair


def _read(sender: socket.socket) -> int:
    return int(_NUMBER.unpack(sender.recv(_NUMBER.size, socket.MSG_WAITALL))[0])


# --- in the process that is forked -----------------------------------------------------


def main() -> None:
    """Fork until the tests have ended; in a fork, run its program."""
    server = socket.socket(fileno=int(sys.argv[1]))
    _import_everything()
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    while True:
        size, descriptors, _, _ = socket.recv_fds(server, _NUMBER.size, 4)
        if not size:
            return
        order = json.loads(server.recv(_NUMBER.unpack(size)[0], socket.MSG_WAITALL))
        if os.fork() == 0:
            break
        for descriptor in descriptors:
            os.close(descriptor)
    server.close()
    for number in _SIGNALS:
        signal.signal(number, before[number])
    ended, *standard = descriptors
    if (pid := os.fork()) != 0:
        _watch(pid, ended, standard)
    os.close(ended)
    _become(*order, standard)


def _import_everything() -> None:
    for module in pkgutil.walk_packages(dsql_outbox.__path__, "dsql_outbox."):
        if not module.name.startswith(_UNUSED):
            import_module(module.name)
    for name in _LAZY:
        import_module(name)
    gc.collect()
    gc.freeze()  # a fork does not copy the pages that its collector would touch


def _watch(pid: int, ended: int, standard: Sequence[int]) -> None:
    """Be the parent of the program, and tell the tests its number and its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for descriptor in standard:
        os.close(descriptor)
    with suppress(OSError):  # the test has ended
        os.write(ended, _NUMBER.pack(pid))
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        os.write(ended, _NUMBER.pack(code))
    os._exit(0)


def _become(
    words: Sequence[str], env: Mapping[str, str], folder: str, standard: Sequence[int]
) -> None:
    for number, descriptor in enumerate(standard):
        os.dup2(descriptor, number)
        os.close(descriptor)
    if os.isatty(0):
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    sys.path[:1] = [folder, *filter(None, env.get("PYTHONPATH", "").split(os.pathsep))]
    kind, program, *rest = words
    sys.argv = [kind, *rest]
    try:
        if kind == "-m":
            runpy.run_module(program, run_name="__main__", alter_sys=True)
        else:
            exec(program, sys.modules["__main__"].__dict__)
    except SystemExit as exited:
        if isinstance(exited.code, int):
            _end(exited.code)
        raise


def _end(code: int) -> None:
    """End as Python does, but leave the modules whole: to take them apart costs four forks."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    with suppress(OSError):  # Python will tell of it
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()

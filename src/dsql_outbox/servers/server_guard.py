"""A small process that stops a server after this process was killed.

Without it, SIGKILL would leave the server running. The guard waits for the end of
a pipe, which the kernel closes however this process ends. Linux and macOS have this
in common.
"""

import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Final

_SHELL: Final = "/bin/sh"
_GATE: Final = 'read -r go && exec "$@" </dev/null'
_GUARD: Final = """
read -r done && exit
kill -s "$2" "$1"
cat <&1 >/dev/null  # ends when the last process of the server has ended
test -z "$3" || rm -rf -- "$3"
"""


def gated(command: Sequence[str]) -> list[str]:
    """A command that runs `command`, in the same process, once `ServerGuard` lets it.

    Its standard input must be a pipe. It ends immediately if this process is killed before.
    """
    return [_SHELL, "-c", _GATE, "gate", *command]


class ServerGuard:
    """Stops one server by a signal when this process ends without `dismiss`."""

    def __init__(
        self, server: subprocess.Popen[bytes], stop: signal.Signals, scratch: Path | None
    ) -> None:
        """Start the guard, then let the `gated` server run.

        The server's standard output must be a pipe that all its processes keep open.
        `scratch` is a folder to remove when they have ended.
        """
        self._process = subprocess.Popen[bytes](
            [_SHELL, "-c", _GUARD, "guard", str(server.pid), stop.name[3:], str(scratch or "")],
            stdin=subprocess.PIPE,
            stdout=server.stdout,
            stderr=subprocess.DEVNULL,
            env={"PATH": "/usr/bin:/bin"},
            cwd="/",
            start_new_session=True,
        )
        with _pipe(server) as gate:
            gate.write(b"\n")

    def dismiss(self) -> None:
        """End the guard. Do so before another process can get the id of the server."""
        self._process.kill()
        self._process.wait()
        _pipe(self._process).close()


def _pipe(process: subprocess.Popen[bytes]) -> IO[bytes]:
    assert process.stdin is not None  # noqa: S101 - we asked for a pipe
    return process.stdin

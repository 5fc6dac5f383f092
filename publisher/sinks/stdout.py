"""The sink ``stdout:``: the lines of ``jsonl:`` on standard output."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

from dsql_outbox.outbox.errors import SettingsError

from .json_lines import LineSink, unavailable_as, write_all
from .port import Sink

_STDOUT: Final = 1
"""The file descriptor, so that no replacement or buffer of `sys.stdout` is in between."""


@asynccontextmanager
async def open_stdout(url: str) -> AsyncGenerator[Sink]:
    """Write one JSON object per line, as ``jsonl:`` does.

    A message is delivered after it was written to the pipe or terminal. Raises
    `SettingsError` if anything follows ``stdout:``. `publish` raises
    `SinkUnavailable` when the reader has closed the pipe.
    """
    if url != "stdout:":
        raise SettingsError("the URL of standard output is stdout: and nothing more")
    yield LineSink("stdout", _append)


def _append(lines: bytes) -> None:
    with unavailable_as("standard output"):
        write_all(_STDOUT, lines)

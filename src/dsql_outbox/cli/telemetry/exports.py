"""The exporters of a command: closed together, by one deadline, with one warning for all losses."""

import logging
from collections.abc import Callable, Generator
from contextlib import contextmanager
from threading import Lock, Thread
from time import monotonic
from typing import Final, Literal

logger = logging.getLogger("dsql_outbox")

FLUSH_SECONDS: Final = 5.0
"""How many seconds it may take to send the last spans and metrics."""

Exported = Literal["spans", "metrics"]


class Exports:
    """The exporters of a command, which report here what they send and what is lost.

    The first loss is logged. A loss of another kind is logged too, unless nothing has arrived
    since: then the endpoint is out of reach, and that was logged.
    """

    def __init__(self) -> None:
        self.lost: list[str] = []
        """The reasons why something was lost."""
        self._shutdowns: list[tuple[Exported, Callable[[], object]]] = []
        self._lock = Lock()
        self._told = set[Exported]()
        self._is_lost = False
        self._at_end: list[Exported] | None = None
        """What was lost after the end began; None before."""

    def add(self, kind: Exported, shutdown: Callable[[], object]) -> None:
        """Let the end of the command call `shutdown`, which sends the last data of an exporter."""
        self._shutdowns.append((kind, shutdown))

    def arrived(self) -> None:
        """Record that an exporter has sent something."""
        self._is_lost = False

    def lose(self, kind: Exported, reason: str) -> None:
        """Record that an exporter has lost something. May be called from any thread."""
        with self._lock:
            if reason not in self.lost:
                self.lost.append(reason)
            if kind in self._told or self._is_lost:
                return
            self._told.add(kind)
            if self._at_end is not None:
                self._at_end.append(kind)
                return
            self._is_lost = True
        _warn(kind, reason)

    def close(self) -> None:
        """Send the last data of all exporters at the same time, for `FLUSH_SECONDS` at most.

        This uses threads, because the SDK's own flush has no time limit.
        """
        lost: list[Exported] = []
        self._at_end = lost
        deadline = monotonic() + FLUSH_SECONDS
        threads: list[tuple[Exported, Thread]] = [
            (kind, Thread(target=shutdown, daemon=True)) for kind, shutdown in self._shutdowns
        ]
        for _, thread in threads:
            thread.start()
        for kind, thread in threads:
            thread.join(max(0.0, deadline - monotonic()))
            if thread.is_alive():
                self.lose(kind, f"they could not be sent within {FLUSH_SECONDS:g} s")
        if lost:
            _warn(" and ".join(sorted(lost, reverse=True)), self.lost[-1])


@contextmanager
def exporting() -> Generator[Exports]:
    """Export inside the block; its end sends the last data, and takes `FLUSH_SECONDS` at most."""
    exports = Exports()
    try:
        yield exports
    finally:
        exports.close()


def _warn(what: str, reason: str) -> None:
    logger.warning("%s are lost, check the OTLP endpoint: %s", what, reason)

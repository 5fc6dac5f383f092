"""Tells once what the broker may lose of what it has acknowledged."""

import logging
from collections.abc import Collection
from itertools import islice
from typing import Final

import anyio

from dsql_outbox.publisher.sinks.port import Keeping, Sink, asks_keeping

logger: Final = logging.getLogger("dsql_outbox")

_MOST: Final = 1000  # topics that are asked about; a warning more would be read by nobody
_AT_ONCE: Final = 100  # topics of a question: NATS is asked about one after the other
_PATIENCE: Final = 15.0
_REST: Final = 60.0
"""Seconds from a question that failed to the next one."""


class ReceiptWatch:
    """Asks a sink how its broker keeps messages, about each topic once, and logs what is weak.

    A topic is asked about after its first delivered message, because until then it may not exist.
    """

    def __init__(self) -> None:
        self._sink: Sink | None = None
        self._topics: set[str] = set()
        self._due: set[str] = set()
        self._news = anyio.Event()
        self._told: set[Keeping] = set()

    def note_open(self, sink: Sink) -> None:
        """Ask this sink from now on, first about what its URL names."""
        if asks_keeping(sink) is not None:
            self._sink = sink
            self._news.set()

    def note_delivered(self, topics: Collection[str]) -> None:
        """Messages of these topics were delivered."""
        if self._sink is None or self._topics.issuperset(topics):
            return
        new = [topic for topic in topics if topic not in self._topics]
        new = new[: _MOST - len(self._topics)]
        self._topics.update(new)
        self._due.update(new)
        if new:
            self._news.set()

    async def run(self) -> None:
        """Ask and log until it is cancelled."""
        while True:
            await self._news.wait()
            self._news = anyio.Event()
            topics = set(islice(self._due, _AT_ONCE))
            self._due -= topics
            if self._due:
                self._news.set()
            if not await self._ask(topics):
                await anyio.sleep(_REST)
                self._due |= topics
                self._news.set()

    async def _ask(self, topics: Collection[str]) -> bool:
        ask = None if self._sink is None else asks_keeping(self._sink)
        if ask is None:
            return True
        try:
            with anyio.fail_after(_PATIENCE):
                found = await ask(topics)
        except Exception as error:  # noqa: BLE001 - of any client; it must not end the publisher
            logger.debug("Publisher cannot ask how messages are kept: %s", type(error).__name__)
            return False
        for keeping in found:
            if keeping not in self._told:
                self._told.add(keeping)
                _tell(keeping)
        return True


def _tell(keeping: Keeping) -> None:
    if keeping.remedy is not None:
        text = "An acknowledged message may be lost: %s: %s; %s"
        logger.warning(text, keeping.place, keeping.text, keeping.remedy)
    elif not keeping.is_known:
        logger.info("What a receipt is worth is unknown: %s: %s", keeping.place, keeping.text)

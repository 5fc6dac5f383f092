"""The socket of a connection to RabbitMQ, which can be cut, and the client's log lines."""

import asyncio
import logging
from contextvars import Context, ContextVar, copy_context
from ssl import SSLContext
from typing import Any, Final

from aiormq.connection import TransportFactory
from yarl import URL

_is_ours: Final = ContextVar("is_ours", default=False)
"""Whether what runs belongs to a connection of a sink: its tasks inherit it."""


class Transport(TransportFactory):
    """Opens the socket for aiormq, and keeps it.

    aiormq says goodbye before it closes a socket. It waits without a limit for a server that
    does not read, as a frozen one, or one with an alarm. `cut` waits for nothing.
    """

    def __init__(self, tls: SSLContext | None) -> None:
        self._tls = tls
        self._writer: asyncio.StreamWriter | None = None

    async def create(self, url: URL, **_: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to the host and port of the URL. Raises `OSError`."""
        reader, self._writer = await asyncio.open_connection(url.host, url.port, ssl=self._tls)
        return reader, self._writer

    def cut(self) -> None:
        """End the connection at once, and drop what was not sent."""
        if self._writer is not None:
            self._writer.transport.abort()


def quiet_context() -> Context:
    """A context in which aiormq logs nothing.

    It logs frames, which hold payloads, and a traceback for each lost connection. The sink says
    itself what happened. Connections of others go on logging.
    """
    for name in ("aiormq.channel", "aiormq.connection"):
        logging.getLogger(name).addFilter(_is_not_ours)  # once, however often it is added
    context = copy_context()
    context.run(_is_ours.set, True)
    return context


def _is_not_ours(_: logging.LogRecord) -> bool:
    return not _is_ours.get()

"""The shared state of the pages of one console: readers, the sampler, and its settings."""

from typing import Any, cast

from starlette.requests import Request

from dsql_outbox.operations.messages import Messages
from dsql_outbox.operations.operator_commands import Commands
from dsql_outbox.operations.records import Records
from dsql_outbox.outbox.database.database import Database, used_by

from .access import Access
from .sampler import Sampler


class Console:
    """The state of an application. The constructor does no I/O.

    Every reader has its own connection, on which the database refuses changes.
    """

    def __init__(
        self, database: Database, *, access: Access, jaeger: str | None, interval: float
    ) -> None:
        self.database = database = used_by("console", database)
        self.access = access
        self.jaeger = jaeger
        self.commands = Commands(database.schema)
        self.messages = Messages(database, read_only=True)
        self.records = Records(database, read_only=True)
        self.sampler = Sampler(database, interval)
        self.change: tuple[tuple[str, int], str] = (("", 0), "")
        """The latest event of the live view, of a base of links and a try of the sampler."""

    async def close(self) -> None:
        """Close all connections."""
        await self.sampler.stop()
        for reader in (self.messages, self.records):
            await reader.close()


def console_of(request: Request) -> Console:
    """The state of the application that answers a request."""
    state: Any = request.app.state
    return cast("Console", state.console)

"""A proxy that keeps what its clients let the server parse, describe and execute.

On Aurora DSQL, a Parse or Describe that reaches its Sync without an Execute, outside of a
transaction, is a read-only transaction by itself.
"""

from typing import Any, NamedTuple

from tests.support.proxy import wire_protocol as wire
from tests.support.proxy.client_session import ClientSession
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.proxy.tcp_proxy import Link, Streams
from tests.support.proxy.wire_protocol import WireMessage

_IDLE = b"I"  # ReadyForQuery: not in a transaction


class Group(NamedTuple):
    """What a client sent up to a Sync, or a simple Query."""

    text: str
    """The SQL that it parses or runs."""
    parsed: int
    described: int
    is_alone: bool
    """Whether it executes nothing, and is in no transaction."""


class CountingProxy(PostgresProxy):
    """A `PostgresProxy` that keeps the groups of messages of all clients in `groups`."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.groups: list[Group] = []

    def of(self, part: str) -> list[tuple[int, int]]:
        """For each group that runs a statement with `part`: how much it parses and describes."""
        return [
            (each.parsed, each.described)
            for each in list(self.groups)
            if part in each.text and not each.is_alone
        ]

    def alone(self) -> list[str]:
        """The SQL of the groups that are a transaction without executing anything."""
        return [each.text for each in list(self.groups) if each.is_alone]

    def _link(self, client: Streams, server: Streams) -> Link:
        return _Session(self, client, server)


class _Session(ClientSession):
    def __init__(self, proxy: CountingProxy, client: Streams, server: Streams) -> None:
        super().__init__(proxy, client, server, proxy._script)
        self._groups = proxy.groups
        self._group: list[WireMessage] = []
        self._status = _IDLE

    async def _take_batch(self, messages: list[WireMessage]) -> None:
        self._group += messages
        if messages[-1].kind in {wire.SYNC, wire.QUERY}:
            group, self._group = self._group, []
            self._note(group)
        await super()._take_batch(messages)

    def _note(self, group: list[WireMessage]) -> None:
        kinds = [message.kind for message in group]
        run = [sql for _, sql in self._statements(group)]
        parsed = [wire.parsed_statement(each)[1] for each in group if each.kind == wire.PARSE]
        executes = wire.EXECUTE_OR_ERROR in kinds or wire.QUERY in kinds
        self._groups.append(
            Group(
                "\n".join(run or parsed),
                len(parsed),
                kinds.count(wire.DESCRIBE_OR_ROW),
                is_alone=not executes and self._status == _IDLE,
            )
        )

    def _end_exchange(self, ready: WireMessage, **options: Any) -> None:
        self._status = ready.body
        super()._end_exchange(ready, **options)

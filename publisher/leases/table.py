"""The statements of the lease protocol, on a connection that nothing else uses."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

import psycopg
from psycopg.rows import AsyncRowFactory, class_row, scalar_row, tuple_row

from dsql_outbox.outbox.database.array_literals import array_literal
from dsql_outbox.outbox.database.connection import AsyncConnection
from dsql_outbox.outbox.database.database import Database
from dsql_outbox.outbox.database.exchange import exchange, loaded_rows
from dsql_outbox.outbox.database.fork import OneProcess
from dsql_outbox.outbox.failure import CONFLICTS, NO_SUCH_FORM, kind_of
from dsql_outbox.outbox.settings import DEFAULT_TARGET
from dsql_outbox.outbox.unit_of_work.budget import AT_ONCE
from dsql_outbox.outbox.unit_of_work.lasting import LastingConnection
from dsql_outbox.publisher.settings import PublisherSettings
from dsql_outbox.schema.liveness import PRUNE_AFTER, Lease, Peer, Snapshot
from dsql_outbox.schema.named_statements import numbered_statement, statement
from dsql_outbox.schema.refused_topics import RefusedTopics

from .protocol import Renewal

T = TypeVar("T")


class SqlLeaseTable:
    """The tables of leases and publishers; see `LeaseTable` for the methods.

    Every call runs one autocommit statement. It takes `renew` seconds at most and
    raises the driver's error when there was no answer by then. Because the connection is not
    shared, neither a slow statement of the relay nor a slow broker delays a renewal.
    `paused` returns the topics to announce, which this publisher has paused by itself: some
    names, and how many more there are.
    It sees the leases and the publishers of one `target`.
    """

    def __init__(
        self,
        database: Database,
        settings: PublisherSettings,
        paused: Callable[[], RefusedTopics] = lambda: RefusedTopics((), 0),
        target: str = DEFAULT_TARGET,
    ) -> None:
        self._database = database
        self._settings = settings
        self._connection = LastingConnection(database, timeout=settings.renew, keeps=CONFLICTS)
        self._process = OneProcess("a publisher's leases")
        self._paused = paused
        self._target = target
        self._is_refused = False

    async def announce(self, owner: str, *, waits: bool) -> None:
        """See `LeaseTable.announce`."""
        parameters = {
            "owner": owner,
            "waits": waits,
            "lease": self._settings.lease,
            "paused": self._paused().to_json(),
            "target": self._target,
        }
        await self._retry("publisher_announce", parameters, tuple_row)

    async def withdraw(self, owner: str) -> None:
        """See `LeaseTable.withdraw`."""
        await self._retry("publisher_withdraw", {"owner": owner}, tuple_row)

    async def look(self) -> Snapshot:
        """See `LeaseTable.look`."""
        return _snapshot(
            await self._retry("lease_list", {"target": self._target}, class_row(_LeaseRow))
        )

    async def renew(self, owner: str, epochs: Mapping[int, int]) -> set[int]:
        """See `LeaseTable.renew`."""
        return await self._change("lease_renew", owner, epochs)

    async def renew_and_look(self, owner: str, epochs: Mapping[int, int]) -> Renewal | None:
        """See `LeaseTable.renew_and_look`."""
        if self._is_refused:
            return None
        try:
            found = await self._beat(self._parameters(owner, epochs))
        except NO_SUCH_FORM:  # no plan that is out of date: `exchange` knows these
            self._is_refused = True
            return None
        except psycopg.Error as error:
            if kind_of(error) not in CONFLICTS:
                raise
            return None
        return Renewal({row.shard for row in found if row.renewed}, _snapshot(found))

    async def release(self, owner: str, epochs: Mapping[int, int]) -> set[int]:
        """See `LeaseTable.release`."""
        return await self._change("lease_release", owner, epochs)

    async def take(
        self, owner: str, epochs: Mapping[int, int], ended: Mapping[int, float]
    ) -> set[int]:
        """See `LeaseTable.take`."""
        return await self._change("lease_take", owner, epochs, ended)

    async def prune(self) -> None:
        """See `LeaseTable.prune`."""
        parameters = {"leases": PRUNE_AFTER}
        await self._retry("publisher_prune", parameters, tuple_row)

    def drop(self) -> None:
        """Close the connection immediately, without waiting for the server."""
        self._connection.drop()

    async def _change(
        self,
        name: str,
        owner: str,
        epochs: Mapping[int, int],
        ended: Mapping[int, float] | None = None,
    ) -> set[int]:
        """Change leases in one statement, or one by one after a conflict.

        A conflict on one lease fails the whole statement. When the leases are changed
        one by one, only the contested one is lost: for the loser, the WHERE clause no
        longer matches.
        """
        try:
            return set(await self._run(name, self._parameters(owner, epochs, ended), scalar_row))
        except psycopg.Error as error:
            if kind_of(error) not in CONFLICTS:
                raise
        changed: set[int] = set()
        for one in epochs.items():
            parameters = self._parameters(owner, dict([one]), ended)
            changed |= set(await self._retry(name, parameters, scalar_row))
        return changed

    def _parameters(
        self, owner: str, epochs: Mapping[int, int], ended: Mapping[int, float] | None = None
    ) -> dict[str, Any]:
        return {
            "owner": owner,
            "shards": array_literal(epochs),
            "epochs": array_literal(epochs.values()),
            "ended": array_literal((ended or {}).get(shard, math.nan) for shard in epochs),
            "lease": self._settings.lease,
            "grace": self._settings.grace,
            "paused": self._paused().to_json(),
            "target": self._target,
        }

    async def _retry(
        self, name: str, parameters: Mapping[str, Any], rows: AsyncRowFactory[T]
    ) -> Sequence[T]:
        return await AT_ONCE.run_async(partial(self._run, name, parameters, rows))

    async def _beat(self, parameters: Mapping[str, Any]) -> "Sequence[_LeaseRow]":
        """Run ``lease_beat``, which is prepared, since it runs often."""
        self._process.require()
        query = numbered_statement("lease_beat", self._database.schema)
        values = query.encode({name: str(parameters[name]) for name in query.parameters})

        async def run(connection: AsyncConnection) -> "Sequence[_LeaseRow]":
            result = await connection.wait(exchange(connection, query, values))
            return [_LeaseRow(*row) for row in loaded_rows(connection, result)]

        return await self._connection.use(run)

    async def _run(
        self, name: str, parameters: Mapping[str, Any], rows: AsyncRowFactory[T]
    ) -> Sequence[T]:
        self._process.require()
        query = statement(name, self._database.schema)

        async def run(connection: AsyncConnection) -> Sequence[T]:
            cursor = connection.cursor(row_factory=rows)
            await cursor.execute(query, parameters)
            return await cursor.fetchall() if cursor.description else []

        return await self._connection.use(run)


class _LeaseRow(NamedTuple):
    """A row of ``lease_list`` or ``lease_beat``: a lease, or without a shard a publisher.

    The columns of the other kind are NULL. `renewed` says that the beat renewed the lease.
    """

    shard: Any
    owner: Any
    epoch: Any
    expires_in: float | None
    expires_at: float | None
    seen_at: Any
    age: Any
    lease_seconds: Any
    waits: Any
    renewed: bool = False


def _snapshot(found: Iterable[_LeaseRow]) -> Snapshot:
    leases: list[Lease] = []
    peers: list[Peer] = []
    for row in found:
        if row.shard is None:
            peers.append(Peer(row.owner, row.seen_at, row.age, row.lease_seconds, row.waits))
        else:
            # A row that another program made may have an owner, and no end of its lease.
            ends = -math.inf if row.owner is None or row.expires_in is None else row.expires_in
            leases.append(Lease(row.shard, row.owner, row.epoch, ends, row.expires_at))
    return Snapshot(leases, peers)

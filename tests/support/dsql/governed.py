"""A proxy in front of PostgreSQL that holds each transaction to Aurora DSQL's rules."""

from collections.abc import Callable, Iterable, Sequence
from time import monotonic
from typing import Final

from dsql_outbox.testing.proxy import wire_protocol as wire
from dsql_outbox.testing.proxy.client_session import Batch, ClientSession, Reaction
from dsql_outbox.testing.proxy.postgres_proxy import PostgresProxy
from dsql_outbox.testing.proxy.tcp_proxy import Cut, Link, Streams
from dsql_outbox.testing.proxy.wire_protocol import WireMessage

from .cluster_rules import (
    CONFLICT,
    MAX_BYTES,
    MAX_LIFE,
    Catalog,
    Openings,
    Transactions,
    Violation,
    kind_of,
)
from .refusals import refusal
from .transaction_steps import Answer, Step, steps

STARTUP: Final = 3 << 16
"""The first message of a session: version 3 of the protocol."""

_SNAPSHOTS: Final = b" -c default_transaction_isolation=repeatable\\ read"

_IDLE: Final = b"I"
_OPEN: Final = b"T"
_ABORTED: Final = b"E"
_BEGIN: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ"
_SNAPSHOT: Final = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"

# First how many rows the session has changed: all since its last report, so a difference is taken.
# Then the tables to be measured: a transaction cannot have written more than its tables hold.
_CHANGED: Final = f"""SELECT coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0)::text
FROM pg_catalog.pg_stat_xact_user_tables
UNION ALL
SELECT relid::regclass::text FROM pg_catalog.pg_stat_xact_user_tables
WHERE n_tup_ins + n_tup_upd > 0 AND pg_catalog.pg_table_size(relid) > {MAX_BYTES // 4}"""

_BYTES: Final = """SELECT coalesce(sum(pg_catalog.pg_column_size(t.*)), 0) FROM {} t
WHERE t.xmin = pg_catalog.pg_current_xact_id()::xid"""


class GovernedPostgres(PostgresProxy):
    """PostgreSQL with the rules of DSQL's transactions, as a context manager; `clock` in seconds.

    Isolation is snapshot; a row too many fails at its statement, bytes and age at the COMMIT; a
    statement after another session's DDL fails once; a transaction of several statements that
    loses a conflict learns of it at its COMMIT; a message that is too long ends the connection.
    Connections are opened at a limited rate and live for an hour. SQL that a cluster refuses is
    refused as there.
    """

    def __init__(self, url: str, *, clock: Callable[[], float] = monotonic) -> None:
        super().__init__(url)
        self._catalog = Catalog()
        self.openings = Openings(clock)
        self.clock = clock

    def startup(self, message: WireMessage) -> WireMessage:
        """What the server gets as a client's first message: snapshots, whatever else it asks."""
        version, texts = message.body[:4], message.body[4:-2].split(b"\0")
        asked = dict(zip(texts[::2], texts[1::2], strict=True))
        asked[b"options"] = asked.get(b"options", b"") + _SNAPSHOTS
        pairs = [name + b"\0" + value + b"\0" for name, value in asked.items()]
        return WireMessage(b"", version + b"".join(pairs) + b"\0")

    def _link(self, client: Streams, server: Streams) -> Link:
        return _GovernedSession(self, client, server, Transactions(self._catalog, self.clock))


class _GovernedSession(ClientSession):
    def __init__(
        self,
        proxy: GovernedPostgres,
        client: Streams,
        server: Streams,
        transactions: Transactions,
    ) -> None:
        super().__init__(proxy, client, server, self)
        self._governed = proxy
        self._rules = transactions
        self._state = _IDLE
        self._opened = proxy.clock()
        self._done: list[Step] = []  # of the transaction, to be done again
        self._large: list[str] = []  # tables

    def note_statements(self, statements: Iterable[str]) -> None:
        """Nobody asks."""

    def note_round_trip(self) -> None:
        """Nobody asks."""

    def reactions(self, batch: Batch, transaction: Sequence[str]) -> Iterable[Reaction]:  # noqa: ARG002
        """All batches meet the rules."""
        return [lambda _session, _batch: self._govern(batch)]

    async def _take(self, message: WireMessage) -> None:
        if len(message.raw) > MAX_BYTES:
            raise Cut
        await super()._take(message)

    def _take_request(self, message: WireMessage) -> None:
        is_startup = wire.request_code(message) == STARTUP
        proxy = self._governed
        if is_startup and (violation := proxy.openings.open(proxy.opened - proxy.closed)):
            self.to_client(wire.error_response(*violation).raw)
            raise Cut
        super()._take_request(self._governed.startup(message) if is_startup else message)

    async def _govern(self, batch: Batch) -> None:
        if self._governed.clock() - self._opened > MAX_LIFE:
            raise Cut
        pieces = list(steps(batch))
        kinds = [kind_of(step.sql) for step in pieces if step.sql]
        alone = self._state == _IDLE and "write" in kinds and "begin" not in kinds
        messages = await (self._implicit(pieces) if alone else self._explicit(pieces))
        if batch.asks_ready:
            messages.append(WireMessage(wire.READY, self._state))
        self.to_client(b"".join([message.raw for message in messages]))

    async def _implicit(self, pieces: Sequence[Step]) -> list[WireMessage]:
        """Statements that are a transaction of their own: what it breaks, the last one tells."""
        await self._begin()
        messages: list[WireMessage] = []
        for step in pieces:
            answer, told = await self._statement(step)
            messages += told
            if answer.sqlstate:
                await self._roll_back()
                return messages
        if violation := self._rules.at_commit(await self._size()):
            await self._roll_back()
        else:
            violation = (await self._ask("COMMIT")).violation
        return Answer(messages, _IDLE).failing(violation) if violation else messages

    async def _explicit(self, pieces: Sequence[Step]) -> list[WireMessage]:
        messages: list[WireMessage] = []
        for step in pieces:
            match kind_of(step.sql):
                case "begin" if violation := refusal(step.sql):
                    answer, told = await self._refuse(step, violation)
                case "begin":
                    answer = await self._run(step)
                    if not answer.sqlstate:
                        self._begun(await self._ask(f"{_SNAPSHOT}; {_CHANGED}"))
                    told = answer.messages
                case "commit" if self._state == _OPEN:
                    answer, told = await self._commit(step)
                case "rollback" | "commit":
                    answer = await self._run(step)
                    told = answer.messages
                case _:
                    answer, told = await self._statement(step)
            messages += told
            if answer.sqlstate:
                break
        return messages

    async def _statement(self, step: Step) -> tuple[Answer, list[WireMessage]]:
        kind = kind_of(step.sql)
        if step.sql and self._state != _ABORTED and (violation := self._before(step.sql, kind)):
            return await self._refuse(step, violation)
        answer = await self._run(step)
        if answer.sqlstate == CONFLICT.sqlstate and self._state == _ABORTED:
            answer = await self._lose(step, answer)
        if answer.sqlstate:
            return answer, answer.in_dsqls_words
        if kind == "ddl" and not answer.says_there_already:
            self._rules.changes_schema()
            if self._state == _IDLE:
                self._rules.committed()
        if kind == "write" and (violation := self._rules.wrote(await self._rows())):
            failed = answer.failing(violation)
            return await self._ask("not SQL"), failed  # leaves the transaction as any error does
        self._done.append(step)
        return answer, answer.messages

    def _before(self, sql: str, kind: str) -> Violation | None:
        if self._state == _IDLE:
            self._rules.begin(0)  # a transaction of this statement alone
        return refusal(sql) or self._rules.before(kind)

    async def _commit(self, step: Step) -> tuple[Answer, list[WireMessage]]:
        violation = self._rules.before("commit") or self._rules.at_commit(await self._size())
        if violation:
            refused = await self._refuse(step, violation)
            await self._roll_back()
            return refused
        answer = await self._run(step)
        if not answer.sqlstate:
            self._rules.committed()
        return answer, answer.in_dsqls_words

    async def _refuse(self, step: Step, violation: Violation) -> tuple[Answer, list[WireMessage]]:
        answer = await self._run(step.refused)
        return answer, answer.failing(violation)

    async def _lose(self, step: Step, lost: Answer) -> Answer:
        """Run the transaction again on what the winner left, so that its statements succeed.

        What its clients read is newer than on DSQL, where all stays as in its own snapshot. If
        it does not succeed on that either, the conflict is told at the statement.
        """
        again = [*self._done, step]
        await self._roll_back()
        await self._begin()
        for one in again:
            answer = await self._run(one.again)
            if answer.sqlstate:
                return Answer(lost.messages, self._state)
        self._done = again[:-1]
        self._rules.doomed = True
        return answer

    async def _begin(self) -> None:
        self._begun(await self._ask(f"{_BEGIN}; {_CHANGED}"))

    def _begun(self, changed: Answer) -> None:
        self._done, self._large = [], []
        self._rules.begin(int(changed.texts[0]))

    async def _roll_back(self) -> None:
        await self._ask("ROLLBACK")

    async def _rows(self) -> int:
        rows, *self._large = (await self._ask(_CHANGED)).texts
        return int(rows)

    async def _size(self) -> int:
        return sum([int((await self._ask(_BYTES.format(t))).texts[0]) for t in self._large])

    async def _ask(self, sql: str) -> Answer:
        return await self._run(Step([wire.query(sql)], ""))

    async def _run(self, step: Step) -> Answer:
        got: list[WireMessage] = []

        def keep(message: WireMessage) -> bytes:
            got.append(message)
            return b""

        await self.send(step.request, keep).over.wait()
        *messages, ready = got
        self._state = ready.body
        return Answer(messages, ready.body)

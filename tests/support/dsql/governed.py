"""A proxy in front of PostgreSQL that holds each transaction to Aurora DSQL's rules.

No session waits for a row lock of another one. PostgreSQL locks what a transaction writes, so
each transaction writes behind a savepoint. A statement that meets a lock fails after `_PATIENCE`;
the proxy then takes back what the others wrote, which frees their locks, and runs it again. What
was taken back is written again, in the same snapshot, before the transaction's next statement
and at its COMMIT. So the first to commit wins, and the others learn of it at their COMMIT.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from time import monotonic
from typing import Final

from tests.support.proxy import wire_protocol as wire
from tests.support.proxy.client_session import Batch, ClientSession, Reaction
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.proxy.tcp_proxy import Cut, Link, Streams
from tests.support.proxy.wire_protocol import WireMessage

from .cluster_rules import (
    CONFLICT,
    LARGE_KEY,
    MAX_BYTES,
    MAX_KEY,
    MAX_LIFE,
    MAX_VALUE,
    Catalog,
    Openings,
    Sleeps,
    Transactions,
    Violation,
    is_read,
    kind_of,
    too_large,
)
from .refusals import refusal
from .transaction_steps import Answer, Step, steps

STARTUP: Final = 3 << 16
"""The first message of a session: version 3 of the protocol."""

KEY: Final = b"K"
"""The letter of BackendKeyData."""

_PATIENCE: Final = 5  # milliseconds
_SNAPSHOTS: Final = (
    b" -c default_transaction_isolation=repeatable\\ read -c lock_timeout=%d" % _PATIENCE
)

_IDLE: Final = b"I"
_OPEN: Final = b"T"
_ABORTED: Final = b"E"
_LOCKED: Final = "55P03"
_CANCELED: Final = "57014"
_LOST: Final = {"40001", "40P01"}
_BEGIN: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ"
_SNAPSHOT: Final = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"
_DOOMED: Final = "BEGIN ISOLATION LEVEL READ COMMITTED"
"""The begin of a transaction that has lost: it goes on on whatever the winners leave."""

# The time stands still in a transaction: what is written again is the same.
_NOW: Final = "clock_timestamp()"
_STANDING: Final = (
    "coalesce(nullif(current_setting('endpoint.clock', true), ''),"
    " pg_catalog.clock_timestamp()::text)::timestamptz"
)

# First how many rows the session has changed: all since its last report, so a difference is taken.
# Then the bytes of the log, in which a transaction leaves no less than it writes; other sessions
# write there, too. Then the tables that were written.
_CHANGED: Final = """SELECT coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0)::text
FROM pg_catalog.pg_stat_xact_user_tables
UNION ALL
SELECT pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_insert_lsn(), '0/0')::text
UNION ALL
SELECT relid::regclass::text FROM pg_catalog.pg_stat_xact_user_tables
WHERE n_tup_ins + n_tup_upd > 0"""

# Of the rows of the transaction, all bytes, those of the largest row, and of the largest value.
# Rows of others that began later are not in its snapshot. The bytes are PostgreSQL's, compressed.
_COLUMNS: Final = """SELECT pg_catalog.quote_ident(attname) FROM pg_catalog.pg_attribute
WHERE attrelid = '{}'::regclass AND attnum > 0 AND NOT attisdropped"""
_OWN: Final = "pg_catalog.age(t.xmin) <= pg_catalog.age(pg_catalog.pg_current_xact_id()::xid)"
_BYTES: Final = f"""SELECT unnest(ARRAY[coalesce(sum(pg_catalog.pg_column_size(t.*)), 0),
coalesce(max(pg_catalog.pg_column_size(t.*)), 0), coalesce(max(greatest({{}})), 0)])::text
FROM {{}} t WHERE {_OWN}"""

# Of each index, what tells its longest key among the transaction's rows. DSQL does not compress
# keys, and puts the primary key into each. An index whose declared lengths keep it short, at four
# bytes a character, needs no question: the library's tables have no other.
KEYS: Final = f"""SELECT pg_catalog.format(
'SELECT coalesce(max(%s), 0)::text FROM %s t WHERE {_OWN}',
string_agg(size, ' + '), indrelid::regclass) FROM (
SELECT i.indexrelid, i.indrelid, CASE WHEN attlen > 0 THEN attlen
  WHEN atttypid = 'varchar'::regtype AND atttypmod > 0 THEN (atttypmod - 4) * 4
  ELSE {MAX_KEY + 1} END AS most,
CASE WHEN attlen > 0 THEN attlen::text
  WHEN typcategory = 'S' OR t.oid = 'bytea'::regtype
  THEN pg_catalog.format('coalesce(octet_length(t.%I), 0)', attname)
  ELSE pg_catalog.format('coalesce(pg_catalog.pg_column_size(t.%I), 0)', attname) END AS size
FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_attribute ON attrelid = i.indrelid
JOIN pg_catalog.pg_type t ON t.oid = atttypid
LEFT JOIN pg_catalog.pg_index p ON p.indrelid = i.indrelid AND p.indisprimary
WHERE i.indrelid IN ({{}}) AND (attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])
  OR attnum = ANY (p.indkey))) AS parts
GROUP BY indexrelid, indrelid HAVING sum(most) > {MAX_KEY}"""


class GovernedPostgres(PostgresProxy):
    """PostgreSQL with the rules of DSQL's transactions, as a context manager; `clock` in seconds.

    Isolation is snapshot; a row too many fails at its statement, bytes and age at the COMMIT; a
    statement after another session's DDL fails once; a transaction of several statements that
    loses a conflict learns of it at its COMMIT; a message that is too long ends the connection.
    Connections are opened at a limited rate and live for an hour. SQL that a cluster refuses is
    refused as there. A COMMIT of what was written takes `commit_time` seconds.
    """

    def __init__(
        self, url: str, *, clock: Callable[[], float] = monotonic, commit_time: float = 0.0
    ) -> None:
        super().__init__(url)
        self.commit_time = commit_time
        self.cancels = 0
        """How often a client has cancelled a statement."""
        self.commits: Final = asyncio.Lock()
        """One transaction at a time is committed."""
        self.both_lose = 0
        """Of how many of the next conflicts both sides lose, as was recorded once."""
        self._catalog = Catalog()
        self.openings = Openings(clock)
        self.sleeps = Sleeps(clock)
        self.clock = clock

    def startup(self, message: WireMessage) -> WireMessage:
        """What the server gets as a client's first message: snapshots, whatever else it asks."""
        version, texts = message.body[:4], message.body[4:-2].split(b"\0")
        asked = dict(zip(texts[::2], texts[1::2], strict=True))
        asked[b"options"] = asked.get(b"options", b"") + _SNAPSHOTS
        pairs = [name + b"\0" + value + b"\0" for name, value in asked.items()]
        return WireMessage(b"", version + b"".join(pairs) + b"\0")

    async def pass_commit_time(self) -> None:
        """Let the time of a COMMIT pass."""
        await asyncio.sleep(self.commit_time)

    def opened_session(self, startup: WireMessage, key: WireMessage) -> None:
        """A session has been opened by this first message. A cancel request names its key."""

    async def free_locks(self, of: Link, *, is_lost: bool) -> None:
        """Take back what the transactions of all others have written, so that one may go on.

        If `is_lost`, they learn at their COMMIT that they have lost, too.
        """
        for link in tuple(self._links):
            if isinstance(link, _GovernedSession) and link is not of:
                await link.take_back(is_lost=is_lost)

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
        self._written: list[Step] = []  # by the transaction
        self._is_written = True  # or taken back
        self._rows = 0  # that the transaction has changed
        self._counter = 0  # of all that the session has changed
        self._tables: list[str] = []  # that the transaction has written
        self._keys: dict[tuple[str, int], list[str]] = {}  # what asks for a table's longest keys
        self._log = self._log_before = 0  # bytes
        self._wire = asyncio.Lock()
        self._is_over = False

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
        proxy.cancels += wire.request_code(message) == wire.CANCEL_REQUEST
        if is_startup and (
            violation := proxy.sleeps.connect() or proxy.openings.open(proxy.opened - proxy.closed)
        ):
            self.to_client(wire.error_response(*violation).raw)
            raise Cut
        self._startup = message
        super()._take_request(self._governed.startup(message) if is_startup else message)

    def _answer(self, message: WireMessage) -> bytes:
        if message.kind == KEY:
            self._governed.opened_session(self._startup, message)
        return super()._answer(message)

    async def _govern(self, batch: Batch) -> None:
        if self._governed.sleeps.is_asleep:
            raise Cut
        if self._governed.clock() - self._opened > MAX_LIFE:
            raise Cut
        async with self._wire:
            messages = await self._answered(list(steps(batch)))
        if batch.asks_ready:
            messages.append(WireMessage(wire.READY, self._state))
        self.to_client(b"".join([message.raw for message in messages]))

    async def take_back(self, *, is_lost: bool) -> None:
        """Free the locks of a transaction that runs no statement at this moment."""
        self._rules.doomed = self._rules.doomed or (is_lost and bool(self._written))
        if not self._wire.locked() and not self._is_over:
            with suppress(Cut):
                async with self._wire:
                    await self._take_back()

    async def run(self) -> None:
        """See `Link.run`."""
        try:
            await super().run()
        finally:
            for exchange in self._exchanges:  # others may wait for their answers
                exchange.over.set()

    async def _forward_client(self) -> None:
        try:
            await super()._forward_client()
        finally:
            self._is_over = True

    async def _take_back(self) -> None:
        if self._written and self._is_written and self._state == _OPEN:
            await self._ask("ROLLBACK TO SAVEPOINT written")
            self._is_written = False

    async def _answered(self, pieces: Sequence[Step]) -> list[WireMessage]:
        kinds = [kind_of(step.sql) for step in pieces if step.sql]
        alone = self._state == _IDLE and "write" in kinds and "begin" not in kinds
        return await (self._implicit(pieces) if alone else self._explicit(pieces))

    async def _implicit(self, pieces: Sequence[Step]) -> list[WireMessage]:
        """Statements that are a transaction of their own: what it breaks, the last one tells."""
        await self._begin()
        messages: list[WireMessage] = []
        for step in pieces:
            answer, told = await self._statement(step, alone=True)
            messages += told
            if answer.sqlstate:
                if answer.sqlstate in _LOST:
                    await self._commit_time(lost=True)
                await self._roll_back()
                return messages
        await self._commit_time()
        async with self._committing():
            violation = self._rules.at_commit(0)
            if not violation and not self._is_written:
                again, violation = await self._write_again(tell=True)
                messages = messages if violation else again
            violation = violation or self._rules.at_commit(await self._size())
            if violation:
                await self._roll_back()
            else:
                violation = (await self._ask("COMMIT")).violation
                self._over()
        return Answer(messages, _IDLE).failing(violation) if violation else messages

    async def _explicit(self, pieces: Sequence[Step]) -> list[WireMessage]:
        messages: list[WireMessage] = []
        for step in pieces:
            match kind_of(step.sql):
                case "begin" | "rollback" if violation := refusal(step.sql):
                    answer, told = await self._refuse(step, violation)
                case "begin":
                    answer = await self._run(step)
                    if not answer.sqlstate:
                        self._begun(await self._ask(f"{_SNAPSHOT}; {_opening()}"))
                    told = answer.messages
                case "commit" if self._state == _OPEN:
                    answer, told = await self._commit(step)
                case "rollback" | "commit":
                    answer = await self._run(step)
                    self._over()
                    told = answer.messages
                case _:
                    answer, told = await self._statement(step)
            messages += told
            if answer.sqlstate:
                break
        return messages

    async def _statement(
        self, step: Step, *, alone: bool = False
    ) -> tuple[Answer, list[WireMessage]]:
        kind = kind_of(step.sql)
        if step.sql and self._state != _ABORTED and (violation := self._before(step.sql, kind)):
            return await self._refuse(step, violation)
        answer = await self._perform(step, alone=alone)
        if answer.sqlstate:
            return answer, answer.in_dsqls_words
        if kind == "ddl" and not answer.says_there_already:
            self._rules.changes_schema()
            if self._state == _IDLE:
                self._rules.committed()
        if self._state == _OPEN and (alone or not is_read(step.sql)):
            self._written.append(step)
        if kind == "write":
            await self._count()
            if violation := self._rules.wrote(self._rows) or await self._too_large():
                failed = answer.failing(violation)
                return await self._ask("not SQL"), failed  # leaves the transaction as any error
        return answer, answer.messages

    def _before(self, sql: str, kind: str) -> Violation | None:
        if self._state == _IDLE:
            self._rules.begin()  # a transaction of this statement alone
        return refusal(sql) or self._rules.before(kind)

    async def _perform(self, step: Step, *, alone: bool) -> Answer:
        """Run a statement without waiting for a lock.

        If a winner has committed, the statements run again on what it left, unless the statement
        is `alone`: what the client reads then is newer than on DSQL, where all stays as in its
        own snapshot. If they fail there, the conflict is told at the statement.
        """
        while True:
            violation = None
            if not self._is_written:
                _, violation = await self._write_again()
            cancels = self._governed.cancels
            answer = await (self._conflict() if violation else self._run(step))
            if answer.sqlstate == _LOCKED or self._was_nobodys(answer, cancels):
                await self._make_room()
            elif answer.sqlstate in _LOST and not alone and self._may_go_on():
                written, rows = self._written, self._rows
                await self._roll_back()
                await self._begin(_DOOMED)
                self._written, self._is_written, self._rows = written, not written, rows
                self._rules.doomed = True
            else:
                return answer
            step = step.again

    def _was_nobodys(self, answer: Answer, cancels: int) -> bool:
        """Whether a cancelled statement was at its lock_timeout.

        PostgreSQL interrupts itself then, and takes it for a request if the lock comes that moment.
        """
        return answer.sqlstate == _CANCELED and self._governed.cancels == cancels

    def _may_go_on(self) -> bool:
        return self._state == _ABORTED and not self._rules.doomed

    async def _make_room(self) -> None:
        """Free the locks of the others, after our own: they may wait for these."""
        if self._state == _IDLE:
            await asyncio.sleep(_PATIENCE / 1000)
        else:
            await self._ask("ROLLBACK TO SAVEPOINT written")
            self._is_written = not self._written
        is_lost = self._governed.both_lose > 0
        self._governed.both_lose -= is_lost
        self._rules.doomed = self._rules.doomed or is_lost
        async with self._at_rest():
            await self._governed.free_locks(self, is_lost=is_lost)

    async def _write_again(
        self, *, tell: bool = False
    ) -> tuple[list[WireMessage], Violation | None]:
        """Write what was taken back. Returns the answers, or the conflict if a winner was first."""
        while True:
            messages: list[WireMessage] = []
            for step in self._written:
                answer = await self._run(step.again)
                if answer.sqlstate:
                    break
                messages += answer.messages
            else:
                self._is_written = True
                if not tell:
                    await self._count(add=False)
                return messages, None
            if answer.sqlstate not in {_LOCKED, _CANCELED}:
                return [], CONFLICT
            await self._make_room()

    async def _commit_time(self, *, lost: bool = False) -> None:
        """Let the time of a COMMIT pass, without locks; `lost` if a statement alone has failed."""
        if self._governed.commit_time and (self._written or lost):
            await self._take_back()
            async with self._at_rest():
                await self._governed.pass_commit_time()

    @asynccontextmanager
    async def _at_rest(self) -> AsyncGenerator[None]:
        """Let others take back what this transaction wrote."""
        self._wire.release()
        try:
            yield
        finally:
            await self._wire.acquire()

    @asynccontextmanager
    async def _committing(self) -> AsyncGenerator[None]:
        async with self._at_rest():
            await self._governed.commits.acquire()
        try:
            yield
        finally:
            self._governed.commits.release()

    async def _commit(self, step: Step) -> tuple[Answer, list[WireMessage]]:
        violation = self._rules.before("commit") or self._rules.at_commit(0)
        if violation in {None, CONFLICT}:
            await self._commit_time()
        async with self._committing():
            if not violation and not self._is_written:
                _, violation = await self._write_again()
            violation = violation or self._rules.at_commit(await self._size())
            if violation:
                if self._state == _ABORTED:
                    await self._roll_back()
                refused = await self._refuse(step, violation)
                await self._roll_back()
                return refused
            answer = await self._run(step)
            self._over()
        if not answer.sqlstate:
            self._rules.committed()
        return answer, answer.in_dsqls_words

    async def _refuse(self, step: Step, violation: Violation) -> tuple[Answer, list[WireMessage]]:
        answer = await self._run(step.refused)
        return answer, answer.failing(violation)

    async def _conflict(self) -> Answer:
        failed = await self._ask("not SQL")
        return Answer([wire.error_response(*CONFLICT)], failed.state)

    async def _begin(self, begin: str = _BEGIN) -> None:
        self._begun(await self._ask(f"{begin}; {_opening()}"))

    def _begun(self, changed: Answer) -> None:
        self._over()
        counter, log = changed.texts[:2]
        self._rows, self._counter, self._tables = 0, int(counter), []
        self._log = self._log_before = int(log)
        self._rules.begin()

    async def _roll_back(self) -> None:
        await self._ask("ROLLBACK")
        self._over()

    def _over(self) -> None:
        self._written, self._is_written = [], True

    async def _count(self, *, add: bool = True) -> None:
        counter, log, *self._tables = (await self._ask(_CHANGED)).texts
        if add:
            self._rows += int(counter) - self._counter
        self._counter, self._log = int(counter), int(log)

    async def _size(self) -> int:
        return sum(size for size, _, _ in await self._sizes(MAX_BYTES))

    async def _too_large(self) -> Violation | None:
        found = await self._sizes(MAX_VALUE)
        too = next((too for _, row, value in found if (too := too_large(row, value))), None)
        return too or (LARGE_KEY if await self._longest_key() > MAX_KEY else None)

    async def _longest_key(self) -> int:
        longest = 0
        for table in self._tables:
            place = table, self._rules.catalog.version  # a new one may have other indexes
            if place not in self._keys:
                named = table.replace("'", "''")
                self._keys[place] = (await self._ask(KEYS.format(f"'{named}'::regclass"))).texts
            for key in self._keys[place]:
                longest = max(longest, int((await self._ask(key)).texts[0]))
        return longest

    async def _sizes(self, least: int) -> list[tuple[int, int, int]]:
        """Of each table all bytes, those of the largest row and of the largest value.

        They are measured only if there may be `least` bytes: it takes time.
        """
        if self._log - self._log_before <= least:
            return []
        return [await self._measured(table) for table in self._tables]

    async def _measured(self, table: str) -> tuple[int, int, int]:
        columns = (await self._ask(_COLUMNS.format(table.replace("'", "''")))).texts
        values = ", ".join(f"pg_catalog.pg_column_size(t.{name})" for name in columns)
        size, row, value = (await self._ask(_BYTES.format(values, table))).texts
        return int(size), int(row), int(value)

    async def _ask(self, sql: str) -> Answer:
        return await self._run(Step([wire.query(sql)], ""))

    async def _run(self, step: Step) -> Answer:
        got: list[WireMessage] = []

        def keep(message: WireMessage) -> bytes:
            got.append(message)
            return b""

        await self.send(step.replacing(_NOW, _STANDING).request, keep).over.wait()
        if not got:
            raise Cut  # the server has ended the session
        *messages, ready = got
        self._state = ready.body
        return Answer(messages, ready.body)


def _opening() -> str:
    """What follows each BEGIN. Its query takes the snapshot, which DSQL takes at BEGIN."""
    now = datetime.now(UTC).isoformat()
    return f"SET LOCAL endpoint.clock = '{now}'; SAVEPOINT written; {_CHANGED}"

"""The operator's tool for targets: list, add and fill, drop."""

import re
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from functools import partial
from time import monotonic
from typing import Any, Final, NamedTuple, get_args
from uuid import UUID

import anyio
import msgspec
from anyio import to_thread

from dsql_outbox.outbox.database.array_literals import array_literal
from dsql_outbox.outbox.database.database import Database
from dsql_outbox.outbox.errors import SettingsError
from dsql_outbox.outbox.settings import (
    DEFAULT_SOURCE,
    DEFAULT_TARGET,
    MAX_ENTITY_TYPE,
    require_source,
)
from dsql_outbox.schema.outbox_rows import RowId, row_keys
from dsql_outbox.schema.roles import is_dsql
from dsql_outbox.schema.session import Session, SessionTransaction
from dsql_outbox.schema.target_rows import TargetKind, TargetRow, TargetState, require_target

from .fills import (
    Fill,
    FillPage,
    FillProgress,
    fill_progress,
    run_target,
    take_fill,
)
from .pace import Pace
from .pages import Step, change_pages
from .replay import rows_estimate
from .run import Run
from .tool import OperationEntry, Operator

_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,62}")

_DELETED: Final = 1_000
"""Rows that one statement deletes by key."""

_LOOK: Final = 0.2
"""Seconds between two looks at the transactions that are open."""

LONGEST_TRANSACTION: Final = 300.0
"""Seconds that a transaction may last on Aurora DSQL (AWS, Aurora DSQL quotas)."""


class Target(msgspec.Struct, frozen=True, rename="camel"):
    """A consumer of messages with its own progress.

    `types` are the types of the subjects whose messages it gets; None: all. Its shards begin at
    `first_shard`. `fill` says how far it is filled with earlier events; None: it gets none.
    """

    name: str
    kind: TargetKind
    state: TargetState
    types: tuple[str, ...] | None
    first_shard: int
    fill: FillProgress | None = None


class DroppedTarget(msgspec.Struct, frozen=True, rename="camel"):
    """What `Targets.drop` has deleted.

    `late` are messages of transactions that began before the drop, and were stored after it.
    """

    name: str
    messages: int
    late: int
    dead_letters: int


_decode_types: Final = msgspec.json.Decoder(tuple[str, ...]).decode

TargetTold = Callable[[str], None]
"""Takes a text about what `Targets.drop` waits for."""


class Targets(Operator):
    """The targets of the outbox. Each one gets its own messages, and has its own progress.

    The constructor does no I/O. Use ``async with`` or call `close`. All methods raise
    `SchemaError` if the tables are missing, `SettingsError` for a name, a kind or types that
    cannot be, and the driver's errors.
    """

    def __init__(self, database: Database, *, user: str | None = None) -> None:
        super().__init__(database, user=user)
        self._database = database

    async def list(self) -> list[Target]:
        """All targets, the default one first, and those that were dropped."""
        return await read_targets(self._session)

    def add(  # noqa: PLR0913 - one argument per option
        self,
        name: str,
        *,
        kind: TargetKind = "sink",
        types: Iterable[str] | None = None,
        from_start: bool = False,
        source: str = DEFAULT_SOURCE,
        reason: str = "",
        rate: float | None = None,
    ) -> "AddRun":
        """Add a target. Returns a run: await it, or iterate over it, to do its work.

        The run ends when publishers may relay the target. That gets the messages of the events
        that are stored from some moment of the run on. With
        `from_start`, it gets those of all events: it is filled with the earlier ones, beside the
        writers and the other targets. `source` must then equal the writers' setting, because the
        database does not store it. `rate` is the limit in events per second (None is no limit).

        `types` are the types of the subjects that it takes, which never change; None: all.
        The run waits for the transactions that are open, as they do not know the target: on
        Aurora DSQL for 5 minutes. A call that was interrupted is repeated with the same
        arguments, and goes on, also in another process. If another call fills the target, this one
        waits for it, and takes its place when it has died.
        """
        _require_name(name)
        require_source("Targets.add", source)
        if kind not in get_args(TargetKind):
            raise SettingsError(f"the kind of a target is sink or model, got {kind!r}")
        added = _Added(name, kind, _listed(types), source if from_start else None)
        entry = self._entry("targets add", reason, name)
        return AddRun(self._session, self._database, added, entry, rate=rate)

    async def drop(
        self, name: str, *, reason: str = "", told: TargetTold = lambda _: None
    ) -> DroppedTarget:
        """Drop a target for good, with the messages that wait for it and its dead letters.

        Its name is not used again. The stored events stay. The call waits for the transactions
        that are open, as they may still store messages for it: on Aurora DSQL for 5 minutes. It
        may be repeated.
        """
        rows = await _rows(self._session)
        if all(row.name != name for row in rows):
            require_target(rows, name, None)
        row = next(row for row in rows if row.name == name)
        entry = self._entry("targets drop", reason, name)
        await self._session.transaction(partial(_drop, name, entry))
        messages = await _discard(self._session, row.first_shard)
        await _wait_for_transactions(self._session, self._database, told, anyio.Event())
        late = await _discard(self._session, row.first_shard)
        letters = await _until_none(self._session, "target_letters", {"first": row.first_shard})
        await self._session.execute("failure_sweep", {}, limit=1_000)
        return DroppedTarget(name, messages, late, letters)


class AddRun(Run[Target, Target]):
    """A run of `Targets.add`. Its progress is the target, with how far it is filled."""

    def __init__(
        self,
        session: Session,
        database: Database,
        added: "_Added",
        entry: OperationEntry,
        *,
        rate: float | None,
    ) -> None:
        self._session = session
        self._database = database
        self._added = added
        self._entry = entry
        self.waits_for = ""
        """What the run waits for now; empty: for nothing."""
        super().__init__(added.target, Pace(rate))

    async def _work(self) -> AsyncGenerator[Target]:
        row = await self._session.transaction(partial(_add, self._added, self._entry))
        self._added.require(row)
        self.progress = _target(row)
        yield self.progress
        if row.state == "opening":
            await self._open(row)
            row = await _require(self._session, row.name)
        is_filling = row.state == "filling"
        total = await rows_estimate(self._session, "business_events") if is_filling else None
        while row.state == "filling" and not self.is_stopping:
            fill = await take_fill(self._session, row, total)
            if fill is None:
                self._wait_for("another process, which fills the target, or filled it before")
                self.progress = _target(row, total)
                yield self.progress
                await self.pause(_LOOK)
            else:
                self._wait_for("")
                steps = change_pages(self, fill, fill.pages(self.pace), partial(self._store, fill))
                async with fill.kept(), aclosing(steps):
                    async for each in steps:
                        yield each
                    if not self.is_stopping:
                        await fill.end()
            row = await _require(self._session, row.name)
        self._wait_for("")
        self.progress = _target(row, total)
        yield self.progress

    async def _open(self, row: TargetRow) -> None:
        """Wait for those who do not know the target, and let it run, or fill it."""
        database, stopping = self._database, self._stopping
        await _wait_for_transactions(self._session, database, self._wait_for, stopping)
        if self.is_stopping:
            return
        if self._added.source is not None:
            await self._session.execute("fill_begin", {"target": row.name})
            return
        await _discard(self._session, row.first_shard)
        await self._session.transaction(partial(run_target, row.name))

    async def _store(self, fill: Fill, pages: Sequence[FillPage]) -> Step[Target]:
        await fill.store(pages)
        self.note(state="filling", fill=fill.progress)
        return Step(1, pages[0].seen, [self.progress])

    def _wait_for(self, what: str) -> None:
        self.waits_for = what


async def _rows(session: Session) -> Sequence[TargetRow]:
    return await session.fetch("target_list", TargetRow, {})


async def _require(session: Session, name: str) -> TargetRow:
    return require_target(await _rows(session), name, None)


async def _discard(session: Session, first: int) -> int:
    """Delete the rows of a target as of now: of each subject the first ones. Returns how many.

    Those before the clock until there are none, as more of them may become visible meanwhile;
    and those after it that were there, since later ones of their subjects are to stay.
    """
    found = await session.fetch_rows("target_ahead", {"first": first})
    now = found[0][0]
    total = await _until_none(session, "target_discard", {"first": first, "position": now})
    ahead = [RowId(*row) for _, *row in found if row[0] is not None]
    for start in range(0, len(ahead), _DELETED):
        part = ahead[start : start + _DELETED]
        total += await session.execute("outbox_delete", row_keys(part))
    return total


async def _until_none(session: Session, name: str, parameters: dict[str, Any]) -> int:
    total = 0
    while found := await session.execute(name, parameters):
        total += found
    return total


async def _wait_for_transactions(
    session: Session, database: Database, told: TargetTold, stopping: anyio.Event
) -> None:
    """Wait until all transactions have ended that are open now, or until it is to stop.

    A statement that waits for a row goes on with its old snapshot, in which the targets are
    as they were.
    """
    began = monotonic()
    if await to_thread.run_sync(_is_dsql, database):
        told(f"{LONGEST_TRANSACTION:g} s for the transactions that are open")
        with anyio.move_on_after(began + LONGEST_TRANSACTION - monotonic()):
            await stopping.wait()
        return
    # A transaction that is prepared meanwhile is found after it has lost its virtual id.
    for name in ("transactions_open", "transactions_prepared"):
        left = await _names(session, name)
        if left:
            told(f"the {len(left)} transactions that are open")
        while left and not stopping.is_set():
            with anyio.move_on_after(_LOOK):
                await stopping.wait()
            left &= await _names(session, name)


async def _names(session: Session, name: str) -> set[str]:
    return {found for (found,) in await session.fetch_rows(name, {})}


def _is_dsql(database: Database) -> bool:
    with database.connect() as connection:
        return is_dsql(connection)


class _Added(NamedTuple):
    """What a call of `Targets.add` asks for; `source` is None without a fill."""

    name: str
    kind: TargetKind
    types: str | None
    source: str | None

    @property
    def target(self) -> Target:
        """The target before it is added."""
        types = None if self.types is None else _parsed(self.types)
        return Target(self.name, self.kind, "opening", types, 0)

    def require(self, row: TargetRow) -> None:
        """Raise `SettingsError` unless the target is the one that is asked for."""
        name = self.name
        if row.state == "dropped":
            raise SettingsError(f"target {name} was dropped: a name is used once, choose another")
        if (row.kind, row.types) != (self.kind, self.types):
            raise SettingsError(
                f"target {name} exists as another one: {_described(row)}; drop it, or choose "
                "another name"
            )
        if self.source is not None and row.events is None:
            raise SettingsError(
                f"target {name} exists without its earlier events, which cannot be added later: "
                "drop it, or choose another name"
            )
        if self.source is None and row.state != "running" and row.events is not None:
            raise SettingsError(
                f"target {name} is being filled from the start: add it with from_start again"
            )


async def _add(added: _Added, entry: OperationEntry, transaction: SessionTransaction) -> TargetRow:
    await transaction.execute("target_lock", {})
    target = {"name": added.name, "kind": added.kind, "types": added.types}
    if await transaction.execute("target_add", target):
        await entry.write_in(transaction)
        if added.source is not None:
            fill = {"target": added.name, "source": added.source, "event_id": str(UUID(int=0))}
            await transaction.execute("fill_add", fill)
    rows = await transaction.fetch("target_list", TargetRow, {})
    return next(row for row in rows if row.name == added.name)


async def _drop(name: str, entry: OperationEntry, transaction: SessionTransaction) -> None:
    if name != DEFAULT_TARGET:  # whose row `target_drop` changes in any case
        await transaction.execute("target_lock", {})
    if await transaction.execute("target_drop", {"name": name}):
        await entry.write_in(transaction)
    await transaction.execute("fill_drop", {"target": name})
    await transaction.execute("target_unlease", {"name": name})


async def read_targets(session: Session) -> list[Target]:
    """All targets, the default one first, and those that were dropped."""
    rows = await _rows(session)
    is_filling = any(row.state == "filling" for row in rows)
    total = await rows_estimate(session, "business_events") if is_filling else None
    return [_target(row, total) for row in rows]


def _target(row: TargetRow, total: int | None = None) -> Target:
    types = None if row.types is None else _parsed(row.types)
    return Target(row.name, row.kind, row.state, types, row.first_shard, _fill_of(row, total))


def _fill_of(row: TargetRow, total: int | None) -> FillProgress | None:
    return fill_progress(row.state, (row.events, row.messages, row.forgotten), total)


def _require_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise SettingsError(
            f"a target has a name of a-z 0-9 _ - that begins with a letter, 63 characters at most, "
            f"got {name[:64]!r}"
        )


def _listed(types: Iterable[str] | None) -> str | None:
    """The types as an array literal, sorted, so that two calls compare equal."""
    if types is None:
        return None
    found = sorted(set(types))
    if not found:
        raise SettingsError("a target takes one type of subjects at least, or all")
    for each in found:
        if not 0 < len(each) <= MAX_ENTITY_TYPE or not each.isprintable():
            raise SettingsError(
                f"a type of subjects has 1 to {MAX_ENTITY_TYPE} printable characters, "
                f"got {each[: MAX_ENTITY_TYPE + 1]!r}"
            )
    return array_literal(found)


def _parsed(types: str) -> tuple[str, ...]:
    """The types in an array literal as `array_literal` writes it, which has JSON's quotes."""
    return _decode_types(f"[{types[1:-1]}]")


def _described(row: TargetRow) -> str:
    types = "all types" if row.types is None else f"the types {', '.join(_parsed(row.types))}"
    return f"a {row.kind} of {types}"
